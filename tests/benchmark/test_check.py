"""``benchmark check``: names and files, a line a check, exit codes, never a traceback."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.benchmark.conftest import ROOT, Command, one_line_error, run_command

REWARD = """
from rewards.interface import Reward

class Warmth(Reward):
    '''Red minus blue.'''
    name, version, unit, source = "warmth", "1", "red - blue", "a test"
    range, differentiable = (-1.0, 1.0), True

    def score(self, images, prompts):
        return images[:, 0].mean((1, 2)) - images[:, 2].mean((1, 2))

class Needy(Warmth):
    def __init__(self, colour):
        self.colour = colour

class Cold(Warmth):
    '''Beyond its range.'''
    def score(self, images, prompts):
        return super().score(images, prompts) * 5
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(REWARD)
    return path


def block(page: str, heading: str) -> str:
    """The Python code below a heading of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return text.partition(heading)[2].partition("```python\n")[2].partition("```")[0]


def states(output: str) -> list[str]:
    """The first words of the lines but the last."""
    return [line.partition(":")[0] for line in output.splitlines()[:-1]]


@pytest.mark.parametrize("name", ["colourfulness", "ddpo-sf"])
def test_a_registered_name_passes(benchmark_command: Command, name: str) -> None:
    done = benchmark_command("check", name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(states(done.stdout)) == {"passed"}
    count = len(states(done.stdout))
    assert done.stdout.splitlines()[-1] == f"{name}: {count} checks passed, 0 not applicable"


def test_a_reward_of_one_s_own(benchmark_command: Command, file: Path) -> None:
    assert benchmark_command("check", f"{file}:Warmth").returncode == 0
    done = benchmark_command("check", f"{file}:Cold")
    assert "error: " in one_line_error(done, 5)
    assert re.search(r"error: .*mine.py:Cold: \d of 13 checks failed", done.stderr)
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert "outside its range (-1.0, 1.0)" in failed[0]
    assert len(done.stdout.splitlines()) == 13


@pytest.mark.parametrize(
    ("page", "heading", "name"),
    [
        ("README.md", "## Add a reward", "Warmth"),
        ("README.md", "## Add a method", "Filtered"),
        ("docs/methods.md", "## A new method", "RandomSearch"),
    ],
)
def test_the_guides_examples_pass(tmp_path: Path, page: str, heading: str, name: str) -> None:
    """In a process of its own, since the examples register themselves."""
    (tmp_path / "example.py").write_text(block(page, heading))
    done = run_command(tmp_path, "check", f"example.py:{name}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout


@pytest.mark.parametrize(
    ("content", "subject", "message"),
    [
        ("", "nothing.py", "nothing.py: no such file"),
        ("", "mine.py", "it defines no Method and no Reward class"),
        ("x = 1", "mine.py:x", "x is not a Method or Reward class"),
        ("def broken(:\n", "mine.py:A", "mine.py cannot be imported: SyntaxError"),
        ("import nonesuch", "mine.py:A", "cannot be imported: ModuleNotFoundError: No module"),
        ("1 / 0", "mine.py:A", "cannot be imported: ZeroDivisionError"),
        ("raise SystemExit(3)", "mine.py:A", "cannot be imported: SystemExit: 3"),
        (REWARD, "mine.py", "say which class: mine.py:Warmth, mine.py:Needy, mine.py:Cold"),
        (REWARD, "mine.py:Warmht", "unknown class 'Warmht'; did you mean 'Warmth'?"),
        (REWARD, "mine.py:Needy", "cannot be made without arguments: TypeError"),
        (REWARD, "mine.py:Reward", "Reward is not a Method or Reward class defined in it"),
        ("", "dagg", "unknown method or reward 'dagg'; did you mean 'dag'?"),
        ("x = 1", "./mine.py:", "it defines no Method and no Reward class"),
        ("", "mine.txt", "unknown method or reward 'mine.txt'"),
    ],
)
def test_bad_input_is_one_line(
    benchmark_command: Command, tmp_path: Path, content: str, subject: str, message: str
) -> None:
    (tmp_path / "mine.py").write_text(content)
    done = benchmark_command("check", subject)
    assert message in one_line_error(done, 4)
    assert done.stdout == ""


def test_a_method_that_cannot_even_start_is_told_line_by_line(
    benchmark_command: Command, tmp_path: Path
) -> None:
    (tmp_path / "empty.py").write_text(
        "from methods.interface import Method\n\nclass Empty(Method):\n    pass\n"
    )
    done = benchmark_command("check", "empty.py:Empty")
    assert "checks failed" in one_line_error(done, 5)
    assert done.stdout.startswith(
        "FAILED: it declares what it is and documents its options: 'name'"
    )
    assert "Traceback" not in done.stdout


def test_the_argument_is_needed(benchmark_command: Command) -> None:
    assert "METHOD_OR_FILE" in one_line_error(benchmark_command("check"), 4)
