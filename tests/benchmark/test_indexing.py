"""The index, the table of all scores, and two folders joined."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

from benchmark.claims import Claims
from results import store
from results.records import SCHEMA_VERSION, RunRecord, StatusRecord
from results.scores import final_scores
from tests.benchmark.conftest import Command, one_line_error
from tests.results.synthetic import Synthetic


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Synthetic(tmp_path / "run", rewards=("style",), validated=True).write()


def query(path: Path, text: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as base:
        return base.execute(text).fetchall()


def test_the_index_has_what_the_folder_has(run: Path, benchmark_command: Command) -> None:
    done = benchmark_command("index", run)
    assert done.stdout.strip() == str(run / "index.sqlite"), done.stderr
    path = run / "index.sqlite"
    read = store.read_run(run)
    assert query(path, "SELECT suite, protocol FROM run") == [("synthetic", read.record.protocol)]
    states = dict(query(path, "SELECT cell_id, state FROM cells"))
    assert states == {name: cell.status.state for name, cell in read.cells.items()}
    found = query(
        path,
        "SELECT seed, value FROM final WHERE method = 'dag' AND reward = 'style' "
        "AND kind = 'reward' AND name = 'style' ORDER BY seed",
    )
    assert dict(found) == pytest.approx(final_scores(read, "dag", "style", "reward", "style"))
    cost = query(path, "SELECT seconds, reward_calls FROM cells WHERE cell_id = 'dag--style--s1'")
    status = read.cells["dag--style--s1"].status
    assert cost == [(status.seconds, status.counts.reward_calls)]
    benchmark_command("index", run)  # again, in place of the first
    records = [record for cell in read.cells.values() for record in cell.evaluations]
    rows = sum(len(record.rewards) + len(record.diversity) for record in records)
    assert query(path, "SELECT count(*) FROM scores") == [(rows,)]


def test_the_parquet_file_has_a_row_a_prompt(
    run: Path, tmp_path: Path, benchmark_command: Command
) -> None:
    done = benchmark_command("export", run, "--parquet", tmp_path / "all.parquet")
    assert done.stdout.strip() == str(tmp_path / "all.parquet"), done.stderr
    table = pd.read_parquet(tmp_path / "all.parquet")
    metadata = parquet.read_schema(tmp_path / "all.parquet").metadata
    assert metadata[b"schema_version"] == str(SCHEMA_VERSION).encode()
    cell = store.read_run(run).cells["dag--style--s1"]
    assert cell.config is not None
    mine = table[(table["cell_id"] == "dag--style--s1") & (table["kind"] == "reward")]
    assert len(mine) == len(cell.evaluations) * len(cell.config.evaluation_prompts)
    picked = mine[mine["picked"] & (mine["name"] == "style")].sort_values("prompt_index")
    means = [float(np.mean(images)) for images in cell.picked.rewards["style"]]
    assert picked["value"].tolist() == pytest.approx(means)
    assert picked["prompt"].tolist() == cell.config.evaluation_prompts
    assert set(table["cell_id"]) == {
        name for name, cell in store.read_run(run).cells.items() if cell.status.state == "done"
    }


def test_what_cannot_be_written_or_read(
    run: Path, tmp_path: Path, benchmark_command: Command
) -> None:
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "x"
    assert "cannot write" in one_line_error(benchmark_command("index", run, "--out", out), 4)
    assert "cannot write" in one_line_error(benchmark_command("export", run, "--parquet", out), 4)
    assert "no run.json" in one_line_error(benchmark_command("index", tmp_path), 3)
    log = store.cell_folder(run, "dag--style--s0") / "evaluations.jsonl"
    log.write_text("{}\n")
    assert "evaluations.jsonl line 1: damaged" in one_line_error(benchmark_command("index", run), 3)
    assert not (run / "index.sqlite").exists() and not list(run.glob(".*"))


def two_machines(tmp_path: Path) -> tuple[Path, Path]:
    """Seeds 0 and 1 of one suite, and 1 and 2."""
    first = Synthetic(tmp_path / "first", seeds=(0, 1), rewards=("style",)).write()
    second = Synthetic(tmp_path / "second", seeds=(1, 2), rewards=("style",)).write()
    return first, second


def test_merge_joins_the_cells_of_both(tmp_path: Path, benchmark_command: Command) -> None:
    first, second = two_machines(tmp_path)
    # Failed in one, done in the other; and one that only the second has begun.
    shutil.rmtree(store.cell_folder(first, "dag--style--s1"))
    done = benchmark_command("merge", first, second, "--out", tmp_path / "both")
    assert done.returncode == 0, done.stderr
    run = store.read_run(tmp_path / "both")
    assert run.record.seeds == [0, 1, 2]
    assert set(run.cells) == set(
        Synthetic(tmp_path, seeds=(0, 1, 2), rewards=("style",)).cell_ids()
    )
    assert list(run.cells)[:4] == [*(f"base--none--s{i}" for i in range(3)), "best-of-n--style--s0"]
    assert run.cells["dag--style--s1"].status.state == "done"
    read = [store.read_run(each) for each in (first, second)]
    for source in read:
        for name, cell in source.cells.items():
            if cell.status.state == "done":
                assert run.cells[name].evaluations == cell.evaluations


def test_merge_does_without_the_order_of_rewards(
    tmp_path: Path, benchmark_command: Command
) -> None:
    """A run writes its rewards in the order in which it names them."""
    first, second = two_machines(tmp_path)
    log = store.cell_folder(second, "dag--style--s1") / "evaluations.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:  # a reward more in both, so that there is an order
        line["rewards"]["other"] = line["rewards"]["style"]
    mine = store.cell_folder(first, "dag--style--s1") / "evaluations.jsonl"
    mine.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for line in lines:
        line["rewards"] = dict(reversed(line["rewards"].items()))
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = benchmark_command("merge", first, second, "--out", tmp_path / "both")
    assert done.returncode == 0, done.stderr


def refuse(command: Command, first: Path, second: Path) -> str:
    out = first.parent / "both"
    message = one_line_error(command("merge", first, second, "--out", out), 3)
    assert not out.exists()
    return message


def change(path: Path, kind: Any, **changes: Any) -> None:
    store.write_json(path, store.read_json(path, kind).model_copy(update=changes))


def test_merge_refuses_contradictions(tmp_path: Path, benchmark_command: Command) -> None:
    first, second = two_machines(tmp_path)
    cell = store.cell_folder(second, "dag--style--s1")
    log = (cell / "evaluations.jsonl").read_text()
    digit = log.index("0.", log.index('"rewards"')) + 2
    (cell / "evaluations.jsonl").write_text(log[:digit] + "9" + log[digit:])
    assert "cell dag--style--s1 has other numbers" in refuse(benchmark_command, first, second)
    change(cell / "status.json", StatusRecord, key="b")
    change(store.cell_folder(first, cell.name) / "status.json", StatusRecord, key="a")
    message = refuse(benchmark_command, first, second)
    assert "other code or settings" in message and "(key a)" in message and "(key b)" in message


def test_merge_refuses_parts_of_different_suites(
    tmp_path: Path, benchmark_command: Command
) -> None:
    first, second = two_machines(tmp_path)
    record = store.read_json(second / "run.json", RunRecord)
    config = record.suite_config | {"budget": {"images": 7}}
    change(second / "run.json", RunRecord, suite_config=config)
    assert "they differ in budget.images" in refuse(benchmark_command, first, second)
    change(second / "run.json", RunRecord, suite_config=record.suite_config, protocol="other")
    assert "they differ in protocol" in refuse(benchmark_command, first, second)


def test_merge_refuses_one_method_by_two_programs(
    tmp_path: Path, benchmark_command: Command
) -> None:
    first, second = two_machines(tmp_path)
    for folder, source in ((first, "a"), (second, "b")):
        for seed in store.read_json(folder / "run.json", RunRecord).seeds:
            path = store.cell_folder(folder, f"dag--style--s{seed}") / "status.json"
            change(path, StatusRecord, source=source)
    assert "cells of dag were computed by different code" in refuse(
        benchmark_command, first, second
    )


def test_merge_refuses_what_is_no_run_or_goes_on(
    tmp_path: Path, benchmark_command: Command
) -> None:
    first, second = two_machines(tmp_path)
    for folders, code, message in (
        ((first, first), 4, "same folder"),
        ((first, tmp_path), 3, "no run.json"),
    ):
        done = benchmark_command("merge", *folders, "--out", tmp_path / "both")
        assert message in one_line_error(done, code)
    done = benchmark_command("merge", first, second, "--out", second)
    assert "name a new folder" in one_line_error(done, 4)
    Claims(second).take("dag--style--s2")
    assert "is being run by" in refuse(benchmark_command, first, second)
