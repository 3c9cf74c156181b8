"""Malformed input of every kind: one clear line with the documented exit code, never a traceback,
never a changed file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from results import store
from tests.benchmark.conftest import Command, one_line_error
from tests.results.synthetic import Synthetic

MANY = "x" * 10_000
RIGHT_TO_LEFT = "\u202egnirts\u202c"


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def clean(line: str) -> bool:
    """Whether a line can be shown: no control characters, none that turns the direction, short."""
    return line.isprintable() and len(line) < 1000 and "Traceback" not in line


SUITES: dict[str, bytes] = {
    "empty": b"",
    "only a comment": b"# nothing\n",
    "a list": b"- a\n- b\n",
    "a number": b"42\n",
    "text": b"just text\n",
    "a tab": b"name: x\n\tbudget: 3\n",
    "an open bracket": b"name: [a, b\n",
    "an open quote": b"name: 'x\n",
    "not UTF-8": b"name: \xff\xfe\n",
    "NUL": b"name: x\x00\n",
    "a bell": b"name: x\x07\n",
    "an escape sequence": b'name: "\\e[31mred"\n',
    "a key twice": b"name: x\nname: y\n",
    "two documents": b"name: x\n---\nname: y\n",
    "an unknown anchor": b"name: *nothing\n",
    "an anchor in itself": b"name: &a [*a]\nprompts: *a\n",
    "a tag that makes an object": b"name: !!python/object/apply:os.system ['touch made']\n",
    "a tag of its own": b"name: !mine x\n",
    "a name that is a path": b"name: ../../up\n",
    "a name of 10,000 characters": b"name: " + MANY.encode() + b"\n",
    "a name from right to left": f"name: '{RIGHT_TO_LEFT}'\n".encode(),
    "a mapping as a key": b"? {a: 1}\n: 2\n",
    "deep nesting": b"name: " + b"[" * 5000 + b"]" * 5000 + b"\n",
    "a date for a name": b"name: 2020-01-01\n",
}


@pytest.mark.parametrize("content", SUITES.values(), ids=SUITES.keys())
def test_a_suite_file_that_is_none(
    benchmark_command: Command, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "suite.yaml").write_bytes(content)
    before = snapshot(tmp_path)
    line = one_line_error(benchmark_command("run", "--suite", "suite.yaml"), 4)
    assert clean(line), line
    assert "suite.yaml" in line
    assert snapshot(tmp_path) == before


def changed(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of a suite's mapping at a key path."""

    def change(suite: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for part in parents:
            suite = suite[part]
        suite[last] = value

    return change


VALUES: dict[str, tuple[str, Any]] = {
    "no prompts": ("prompts.train", []),
    "an empty prompt": ("prompts.train", ["a cat", "  "]),
    "a prompt twice": ("prompts.train", ["a cat", "a cat"]),
    "a prompt that is a number": ("prompts.train", [["a cat"]]),
    "a prompt set that is none": ("prompts.train", "animals-trian"),
    "a prompt file that is none": ("prompts.train", "none.txt"),
    "a prompt file outside of text": ("prompts.train", "suite.yaml.txt"),
    "an unknown reward": ("rewards", ["stlye"]),
    "a reward that is markup": ("rewards", ["<script>alert(1)</script>"]),
    "a reward of control characters": ("rewards", ["a\x1b[31m\x07b"]),
    "a reward from right to left": ("rewards", [RIGHT_TO_LEFT]),
    "a reward of 10,000 characters": ("rewards", [MANY]),
    "a reward that is a path": ("rewards", ["../../etc/passwd"]),
    "no rewards": ("rewards", []),
    "rewards that are a number": ("rewards", 3),
    "an unknown method": ("methods", ["dagg"]),
    "a method that is markup": ("methods", {"<b>dag</b>": {}}),
    "a method of quotes": ("methods", {"'\"": {}}),
    "methods that are text": ("methods", "dag"),
    "an unknown option": ("methods", {"ddpo": {"learning_rat": 1}}),
    "an option that is text": ("methods", {"ddpo": {"learning_rate": "fast"}}),
    "a rate that is not finite": ("methods", {"ddpo": {"learning_rate": float("nan")}}),
    "a rate that is infinite": ("methods", {"ddpo": {"learning_rate": float("inf")}}),
    "a rate below zero": ("methods", {"ddpo": {"learning_rate": -1.0}}),
    "an option of 10,000 characters": ("methods", {"ddpo": {"learning_rate": MANY}}),
    "options that are a list": ("methods", {"ddpo": [1, 2]}),
    "seeds below zero": ("seeds", [-1]),
    "seeds that are text": ("seeds", "zero"),
    "a seed twice": ("seeds", [1, 1]),
    "a seed that is half": ("seeds", [0.5]),
    "no images": ("budget.images", 0),
    "images that are too many digits": ("budget.images", "9" * 5000),
    "fewer images than a round": ("budget.images", 1),
    "no steps": ("model.sampling_steps", 0),
    "too many steps": ("model.sampling_steps", 10**6),
    "a guidance that is not finite": ("model.guidance_scale", float("nan")),
    "an eta above one": ("model.eta", 2),
    "an unknown device": ("model.device", "cuda:9"),
    "a model that is none": ("model.name", "no/such/folder/at/all"),
    "a model that is a file": ("model.name", "suite.yaml"),
    "a model that is an empty folder": ("model.name", "."),
    "an unknown encoder": ("evaluation.encoders", ["scorre"]),
    "evaluation that is a list": ("evaluation", [1]),
    "an unknown key": ("evaluation.tmies", 3),
    "a key that is markup": ("evaluation.<i>", 3),
    "one image a prompt": ("evaluation.images_per_prompt", 1),
    "a rule that is none": ("evaluation.checkpoint", "best"),
    "no workers": ("workers", 0),
    "no threads": ("threads", 0),
    "threads in words": ("threads", "as many as go"),
}


@pytest.mark.parametrize(("path", "value"), VALUES.values(), ids=VALUES.keys())
def test_a_suite_with_a_value_that_cannot_be(
    benchmark_command: Command, tmp_path: Path, tiny_suite: Path, path: str, value: Any
) -> None:
    suite = yaml.safe_load(tiny_suite.read_text())
    changed(path, value)(suite)
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite, allow_unicode=False))
    before = snapshot(tmp_path)
    line = one_line_error(benchmark_command("run", "--suite", "suite.yaml", "--out", "run"), 4)
    assert clean(line), line
    assert snapshot(tmp_path) == before


OVERRIDES = {
    "nothing": "",
    "no value": "budget.images",
    "no key": "=3",
    "an empty part": "budget..images=3",
    "malformed YAML": "budget.images=[1",
    "a tag": "name=!!python/object/apply:os.getcwd []",
    "markup": "<script>=1",
    "control characters": "budget.\x1b[2Jimages=1",
    "10,000 characters": f"{MANY}=1",
    "a value of 10,000 characters": f"budget.images={MANY}",
    "into a number": "budget.images.more=1",
    "into a list": "rewards.first=1",
    "a method that is not there": "dagg.learning_rate=1",
}


@pytest.mark.parametrize("text", OVERRIDES.values(), ids=OVERRIDES.keys())
def test_an_override_that_is_none(
    benchmark_command: Command, tmp_path: Path, tiny_suite: Path, text: str
) -> None:
    before = snapshot(tmp_path)
    line = one_line_error(benchmark_command("run", "--suite", tiny_suite, "--set", text), 4)
    assert clean(line), line
    assert snapshot(tmp_path) == before


FILES = {
    "no such file": ("none.py:Mine", None),
    "no class": ("mine.py", b"x = 1\n"),
    "an unknown class": ("mine.py:Yours", b"class Mine: ...\n"),
    "a class that is neither": ("mine.py:Mine", b"class Mine: ...\n"),
    "not Python": ("mine.py:Mine", b"class Mine(:\n"),
    "not text": ("mine.py:Mine", b"\xff\xfe\x00"),
    "a NUL": ("mine.py:Mine", b"x = '\x00'\n"),
    "an import of nothing": ("mine.py:Mine", b"import nothing_at_all\n"),
    "an error when read": ("mine.py:Mine", b"raise RuntimeError('\\x1b[31m two\\nlines')\n"),
    "an end when read": ("mine.py:Mine", b"raise SystemExit(0)\n"),
    "a function": ("mine.py:Mine", b"def Mine(): ...\n"),
    "a name that is not in Python": ("mine.py:<b>", b"x = 1\n"),
}


@pytest.mark.parametrize(("subject", "content"), FILES.values(), ids=FILES.keys())
def test_a_file_to_check_that_holds_no_method(
    benchmark_command: Command, tmp_path: Path, subject: str, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "mine.py").write_bytes(content)
    before = snapshot(tmp_path)
    line = one_line_error(benchmark_command("check", subject), 4)
    assert clean(line), line
    after = {k: v for k, v in snapshot(tmp_path).items() if "__pycache__" not in k}
    assert after == before


def damaged(name: str, content: bytes) -> Callable[[Path], None]:
    """A file of a run replaced."""

    def damage(run: Path) -> None:
        (run / name).write_bytes(content)

    return damage


def record_with(key: str, value: Any) -> Callable[[Path], None]:
    """``run.json`` with one value changed."""

    def damage(run: Path) -> None:
        record = json.loads((run / "run.json").read_text())
        record[key] = value
        (run / "run.json").write_text(json.dumps(record))

    return damage


CELL = "cells/dag--style--s0"
RESULTS: dict[str, Callable[[Path], None]] = {
    "no record": lambda run: (run / "run.json").unlink(),
    "an empty record": damaged("run.json", b""),
    "half a record": damaged("run.json", b'{"schema_version": 2, "suite":'),
    "a record that is a list": damaged("run.json", b"[]"),
    "a record of bytes": damaged("run.json", bytes(range(256))),
    "a record of a later version": record_with("schema_version", 99),
    "a record of version zero": record_with("schema_version", 0),
    "a cell outside of the run": record_with("cells", ["../../../etc--passwd--s0"]),
    "a cell that is absolute": record_with("cells", ["/etc/passwd--style--s0"]),
    "a cell that is markup": record_with("cells", ["<b>--style--s0"]),
    "a cell of control characters": record_with("cells", ["dag\x1b[2J--style--s0"]),
    "cells that are numbers": record_with("cells", [1, 2]),
    "a cell's status cut off": damaged(f"{CELL}/status.json", b'{"state": "do'),
    "a state that is none": damaged(
        f"{CELL}/status.json", b'{"schema_version": 2, "state": "finished"}'
    ),
    "a cell's config that is text": damaged(f"{CELL}/config.json", b"text"),
    "evaluations that are none": damaged(f"{CELL}/evaluations.jsonl", b"{}\n"),
    "evaluations with a line of bytes": damaged(f"{CELL}/evaluations.jsonl", b"\xff\xfe\n"),
    "metrics with a broken line": damaged(f"{CELL}/metrics.jsonl", b"{nonsense}\n{}\n"),
}


@pytest.mark.parametrize("command", ["report", "measure"])
@pytest.mark.parametrize("damage", RESULTS.values(), ids=RESULTS.keys())
def test_a_damaged_results_folder(
    benchmark_command: Command, tmp_path: Path, damage: Callable[[Path], None], command: str
) -> None:
    if command == "report" and damage is RESULTS["metrics with a broken line"]:
        command = "measure"  # a report does without the rounds of training, and does not read them
    run = tmp_path / "run"
    Synthetic(run).write()
    damage(run)
    before = snapshot(tmp_path)
    arguments = ["report", run] if command == "report" else ["measure", "all", run]
    line = one_line_error(benchmark_command(*arguments), 3)
    assert clean(line), line
    assert str(run) in line
    assert snapshot(tmp_path) == before


HOSTILE = (
    "<script>alert(1)</script>",
    "\"quotes\" and 'quotes' & ampersands",
    "\x1b[31mred\x07",
    RIGHT_TO_LEFT,
    MANY,
    "=cmd|' /C calc'!A0",
    "line\nbreak",
)


def test_hostile_prompts_do_no_harm(
    benchmark_command: Command, tmp_path: Path, tiny_suite: Path
) -> None:
    suite = yaml.safe_load(tiny_suite.read_text())
    suite["prompts"]["train"] = list(HOSTILE)
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    done = benchmark_command("run", "--suite", "suite.yaml", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "\x1b[31m" not in done.stdout and "Traceback" not in done.stderr


def test_there_are_as_many_cases_as_stated() -> None:
    cases = [*SUITES, *VALUES, *OVERRIDES, *FILES, *RESULTS]
    assert len(cases) >= 60
    assert store.CELL_ID.fullmatch("../../../etc--passwd--s0") is None
