"""The command line from outside: exit codes, one line an error, lists and plans."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from results import store
from tests.benchmark.conftest import Command, environment, one_line_error, run_command
from tests.results.synthetic import Synthetic
from tests.results.test_merged import other_protocol


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--suite", "emoij"], "did you mean 'emoji'"),
        (["run", "--suite", "none.yaml"], "none.yaml: no such file"),
        (["run", "--seeds", "2-0"], "--seeds 2-0: seeds"),
        (["run", "--set", "budget.imgaes=4"], "did you mean 'images'"),
        (["run", "--set", "prompts.train=animals-held-out"], "overlap"),
        (["run", "--wrokers", "2"], "No such option: --wrokers"),
        (["run", "--workers", "0"], "--workers"),
        (["list", "reward"], "'rewards'"),
        ([], "Missing command"),
    ],
)
def test_errors_of_the_command_line(
    benchmark_command: Command, arguments: list[str], message: str
) -> None:
    assert message in one_line_error(benchmark_command(*arguments), 4)


@pytest.mark.parametrize(
    "arguments",
    [["run", "--help"], ["list", "suites"], ["list", "models"], ["run", "--set", "budget.x=1"]],
)
def test_what_needs_no_torch_does_not_import_it(tmp_path: Path, arguments: list[str]) -> None:
    code = (
        "import sys\nfrom benchmark.cli import main\ntry:\n    main(sys.argv[1:])\n"
        "except SystemExit as end:\n    assert 'torch' not in sys.modules\n    raise\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 4), done.stderr


def test_an_error_from_outside(tmp_path: Path) -> None:
    done = run_command(tmp_path, "run", "--methods", "ddpo,dagg")
    assert "unknown method 'dagg'; did you mean 'dag'" in one_line_error(done, 4)
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "ddpo,dagg"], "--methods ddpo,dagg: unknown method 'dagg'; did you mean"),
        (["--rewards", "stlye"], "--rewards stlye: unknown reward 'stlye'; did you mean 'style'"),
        (
            ["--set", "ddpo.learning_rat=1"],
            "unknown key 'methods.ddpo.learning_rat'; did you mean 'learning_rate'",
        ),
        (["--set", "ddpo.learning_rate=fast"], "--set ddpo.learning_rate=fast: methods.ddpo"),
        (["--rewards", "background"], "prompts.train: reward 'background': prompt"),
        (["--set", "model.name=emoij"], "unknown model 'emoij'; did you mean 'emoji'"),
        (["--model", "emoij"], "--model emoij: model.name: unknown model 'emoij'; did you mean"),
    ],
)
def test_unknown_names(
    benchmark_command: Command, tiny_suite: Path, arguments: list[str], message: str
) -> None:
    done = benchmark_command("run", "--suite", tiny_suite, *arguments)
    assert message in one_line_error(done, 4)


def test_malformed_suite_names_file_and_line(benchmark_command: Command, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("name: broken\nrewards: [a, b\nmethods: x\n", encoding="utf-8")
    assert f"{path}:3: malformed YAML" in one_line_error(
        benchmark_command("run", "--suite", path), 4
    )


def test_missing_weights_are_named(
    benchmark_command: Command, tiny_suite: Path, tmp_path: Path
) -> None:
    (tmp_path / "hollow").mkdir()
    done = benchmark_command("run", "--suite", tiny_suite, "--set", "model.name=hollow")
    assert "lacks a file: hollow/model_index.json" in one_line_error(done, 4)


def test_a_folder_that_cannot_be_written(
    benchmark_command: Command, tiny_suite: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    done = benchmark_command("run", "--suite", tiny_suite, "--out", tmp_path / "file" / "run")
    assert "cannot write to" in one_line_error(done, 4)
    done = benchmark_command("run", "--suite", tiny_suite, "--out", tmp_path / "file")
    assert "is a file" in one_line_error(done, 4)


def test_a_folder_with_something_else_is_refused(
    benchmark_command: Command, tiny_suite: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep", encoding="utf-8")
    done = benchmark_command("run", "--suite", tiny_suite, "--out", tmp_path / "mine")
    assert "not a run folder" in one_line_error(done, 4)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_report_of_no_run(benchmark_command: Command, tmp_path: Path) -> None:
    assert "no run.json" in one_line_error(benchmark_command("report", tmp_path), 3)


def test_a_run_without_cells_is_nothing_to_report(
    benchmark_command: Command, tmp_path: Path
) -> None:
    record = Synthetic(tmp_path / "run").run_record([])
    store.write_json(tmp_path / "run" / "run.json", record)
    for options in ([], ["--figures", tmp_path / "figures"], ["--tables", tmp_path / "tables"]):
        done = benchmark_command("report", tmp_path / "run", *options)
        assert "the run has no cells" in one_line_error(done, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_compare_says_what_it_cannot_compare(benchmark_command: Command, tmp_path: Path) -> None:
    first = Synthetic(tmp_path / "first", seeds=(0,), rewards=("style",)).write()
    empty = tmp_path / "empty"
    store.write_json(empty / "run.json", Synthetic(empty).run_record([]))
    assert "no run.json" in one_line_error(
        benchmark_command("compare", first, tmp_path / "none"), 3
    )
    assert "same folder" in one_line_error(
        benchmark_command("compare", first, tmp_path / "none" / ".." / "first"), 4
    )
    assert "no cells" in one_line_error(benchmark_command("compare", first, empty), 3)
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    second = Synthetic(tmp_path / "second", seeds=(0,), rewards=("style",)).write()
    done = benchmark_command("compare", first, second, "--out", tmp_path / "file" / "page.html")
    assert "cannot write" in one_line_error(done, 4)
    done = benchmark_command("compare", first)
    assert "Missing argument 'B'" in one_line_error(done, 4)


def test_report_and_compare_from_outside(tmp_path: Path) -> None:
    first = Synthetic(tmp_path / "first", seeds=(0, 1), rewards=("style",)).write()
    second = Synthetic(tmp_path / "second", seeds=(0, 1), rewards=("style",)).write()
    done = run_command(tmp_path, "report", first, "--figures", "figures", "--tables", "tables")
    assert done.returncode == 0, done.stderr
    written = done.stdout.splitlines()
    assert written[0] == str(first / "report.html")
    assert {"figures/reward_diversity.svg", "tables/scores.tex"} < set(written)
    assert all((tmp_path / path).stat().st_size > 100 for path in written)
    done = run_command(tmp_path, "compare", first, second)
    assert done.returncode == 0 and done.stdout.strip() == "compare.html", done.stderr
    assert "dag [B]" in (tmp_path / "compare.html").read_text(encoding="utf-8")


def test_figures_and_tables_of_two_runs(benchmark_command: Command, tmp_path: Path) -> None:
    first = Synthetic(tmp_path / "first", rewards=("style",)).write()
    second = Synthetic(tmp_path / "second", rewards=("style",)).write()
    other = other_protocol(Synthetic(tmp_path / "third", rewards=("style",)).write())
    options = ("--figures", "figures", "--tables", "tables")
    done = benchmark_command("compare", first, second, *options)
    assert done.returncode == 0, done.stderr
    assert {"figures/cross_rewards.pdf", "tables/scores.csv"} < set(done.stdout.splitlines())
    assert "dag [B]" in (tmp_path / "tables" / "scores.csv").read_text(encoding="utf-8")
    # Of different protocols nothing is in one figure or table.
    done = benchmark_command("compare", first, other, "--figures", "two", "--tables", "two")
    assert done.returncode == 0, done.stderr
    written = set(done.stdout.splitlines())
    for label in "AB":
        assert {f"two/{label}/scores.csv", f"two/{label}/attainment.svg"} < written
    assert "ffff0000" in (tmp_path / "two" / "B" / "scores.csv").read_text(encoding="utf-8")
    assert "ffff0000" not in (tmp_path / "two" / "A" / "scores.csv").read_text(encoding="utf-8")


def test_dry_run_lists_cells_and_writes_nothing(
    benchmark_command: Command, tiny_suite: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = benchmark_command(
        *("run", "--suite", tiny_suite, "--dry-run", "--methods", "alignprop", "--seeds", "0-1"),
        *("--set", "alignprop.images_per_prompt=2"),
    )
    assert done.returncode == 0, done.stderr
    assert sorted(tmp_path.rglob("*")) == before
    assert "folder runs/tiny-001" in done.stdout
    assert "base--none--s1  run" in done.stdout
    assert "alignprop--colourfulness--s0  run" in done.stdout
    assert (
        "alignprop--jpeg_compressibility--s0  not applicable: alignprop needs a reward gradient, "
        "and jpeg_compressibility has none"
    ) in done.stdout
    assert "8 of 10 cells to run" in done.stdout


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("methods", ["base", "best-of-n", "dag", "dag-kl", "ddpo", "ddpo-sf", "alignprop"]),
        ("rewards", ["jpeg_compressibility", "clip_score", "style", "colourfulness"]),
        ("suites", ["emoji", "emoji-quick", "emoji-validation", "mixture"]),
        ("models", ["emoji", "mixture"]),
    ],
)
def test_list(benchmark_command: Command, kind: str, names: list[str]) -> None:
    done = benchmark_command("list", kind)
    assert done.returncode == 0, done.stderr
    first_words = [line.split()[0] for line in done.stdout.splitlines() if line.strip()]
    assert set(names) <= set(first_words)


def test_help_documents_the_exit_codes(benchmark_command: Command) -> None:
    done = benchmark_command("run", "--help")
    assert done.returncode == 0
    words = " ".join(done.stdout.split())
    assert "2 the run ended, but some cells failed" in words
