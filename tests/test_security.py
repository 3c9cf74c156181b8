"""What comes from outside, weights, suites, results and names, is data and nothing else."""

from __future__ import annotations

import ast
import csv
import io
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.cli import main
from benchmark.errors import UsageError, printable, shown
from benchmark.models import find_model
from benchmark.terminal import Table, print_table
from reports.table_formats import Table as PrintedTable
from results import store

ROOT = Path(__file__).parents[1]
PACKAGES = ("benchmark", "diffusion", "methods", "reports", "results", "rewards")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def calls(path: Path) -> Iterator[tuple[str, dict[str, ast.expr]]]:
    """Dotted name and keyword arguments of every call in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            keywords = {key.arg: key.value for key in node.keywords if key.arg}
            yield ast.unparse(node.func), keywords


def is_true(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and value.value is True


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_loads_code_with_data(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
        )
    }
    assert not imported & {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for name, keywords in calls(path):
        if name in ("torch.load", "load") and name != "load":
            assert is_true(keywords.get("weights_only")), f"{name} in {path}"
        assert name not in ("eval", "exec", "os.system", "yaml.unsafe_load", "yaml.full_load")
        assert not is_true(keywords.get("allow_pickle"))
        assert not is_true(keywords.get("trust_remote_code"))
        assert not is_true(keywords.get("shell"))


class Harmful:
    """Unpickled, it makes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


def with_pickled_unet(tiny_model: Path, folder: Path, trace: Path) -> Path:
    """A copy of a model whose UNet has pickled weights only; loading them leaves a trace."""
    model = folder / "model"
    for path in tiny_model.rglob("*"):
        target = model / path.relative_to(tiny_model)
        if path.is_file() and not (path.parent.name == "unet" and path.suffix == ".safetensors"):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    weights = model / "unet" / "diffusion_pytorch_model.bin"
    weights.write_bytes(pickle.dumps(Harmful(trace)))
    return model


def test_pickled_weights_are_not_loaded(tiny_model: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    model = with_pickled_unet(tiny_model, tmp_path, trace)
    with pytest.raises(UsageError, match="safetensors"):
        find_model(str(model))
    from diffusion.pipelines import ModelError, load_pipeline

    with pytest.raises(ModelError):
        load_pipeline(str(model))
    assert not trace.exists()
    # The trace shows loading: a careless loader leaves it.
    with pytest.raises(pickle.UnpicklingError):
        torch.load(model / "unet" / "diffusion_pytorch_model.bin", weights_only=True)
    assert not trace.exists()
    pickle.loads((model / "unet" / "diffusion_pytorch_model.bin").read_bytes())  # noqa: S301
    assert trace.exists()


@pytest.mark.parametrize(
    "cell_id",
    ["../x--style--s0", "/x--style--s0", "a/b--style--s0", "a--../../style--s0", "a--b--s0/..", ""],
)
def test_a_cell_stays_in_its_run(tmp_path: Path, cell_id: str) -> None:
    with pytest.raises(store.ResultsError, match="is not <method>--<reward>--s<seed>"):
        store.read_cell(tmp_path, cell_id)


def test_a_suite_runs_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for tag in (
        "python/object/apply:os.mkdir ['made']",
        "python/name:os.system",
        "python/tuple []",
    ):
        (tmp_path / "suite.yaml").write_text(f"name: !!{tag}\n")
        with pytest.raises(SystemExit) as end:
            main(["run", "--suite", "suite.yaml"])
        assert end.value.code == 4
        assert "could not determine a constructor" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["suite.yaml"]


def test_the_default_run_asks_no_hub(tmp_path: Path) -> None:
    """Everything a run decides before it starts, with every way to the network cut off."""
    code = (
        "import socket, sys\n"
        "def refuse(*arguments, **options): raise AssertionError('network')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from benchmark.cli import main\nmain(['run', '--dry-run'])\n"
    )
    variables = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**variables, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_text_for_a_terminal_moves_nothing() -> None:
    hostile = "a\x1b[2Jb\x07\u202ec\x9bd"
    assert printable(hostile) == r"a\x1b[2Jb\x07\u202ec\x9bd"
    assert printable("plain ü 漢 text\n") == "plain ü 漢 text\n"
    assert len(shown("x" * 10_000)) < 1000


def test_a_printed_table_shows_markup_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("name")
    table.add_row("[red]x[/red] \x1b[31my :smile:")
    print_table(table)
    printed = capsys.readouterr().out
    assert r"[red]x[/red] \x1b[31my :smile:" in printed
    assert "\x1b" not in printed


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-2+3", "@sum(a1)", "\t=1", "\r=1"])
def test_csv_holds_no_formula(text: str) -> None:
    table = PrintedTable("t", "", ["name", "value"], [[text, -1.5]])
    name, value = list(csv.reader(io.StringIO(table.csv())))[1]
    assert name == "'" + text.replace("\r", " ")
    assert float(value) == -1.5
