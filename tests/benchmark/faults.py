"""Rewards that break, each in a way of its own, in a checkout made of links to this one.

They break while their own cell trains, which they tell by the number of points: in evaluations, all
cells are scored by all rewards.
"""

from __future__ import annotations

from pathlib import Path

from tests.benchmark.conftest import ROOT

BATCH = 7
"""Points that are scored at a time in training, and never in evaluations."""
FAULTS = {
    "raises": 'raise RuntimeError("the judge has left")',
    "hangs": "time.sleep(3600)",
    "misshapen": "scores = scores[:-1]",
    "not_finite": "scores = scores * float('nan')",
    "no_tensor": "scores = ['good'] * len(images)",
    "hungry": "self.kept = bytearray(b'x') * (2 * 2**30); time.sleep(60)",
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
}
"""Name to what the reward does in training."""
FAULTS_OF_SECOND = {
    "second_raises": 'raise RuntimeError("the second judge has left")',
    "second_killed": "os.kill(os.getpid(), signal.SIGKILL)",
}
"""Likewise in the second process of a cell alone."""
TEMPLATE = '''
import os, signal, time
from rewards import register
from rewards.interface import Reward


@register
class Broken(Reward):
    """How far to the right a point is, until it breaks."""

    name = "{name}"
    version = "1"
    unit = "units of length"
    range = (None, None)
    differentiable = False
    source = "a test"
    scores = "point"

    def score(self, images, prompts):
        scores = images[:, 0]
        if len(images) == {batch} and {when}:
            {body}
        return scores
'''


def checkout(folder: Path) -> Path:
    """A folder to put on the path, whose package ``rewards`` has the broken ones too."""
    for name in ("benchmark", "diffusion", "methods", "reports", "results"):
        (folder / name).symlink_to(ROOT / name)
    rewards = folder / "rewards"
    rewards.mkdir()
    for path in (ROOT / "rewards").iterdir():
        if path.name != "__pycache__":
            (rewards / path.name).symlink_to(path)
    whens = dict.fromkeys(FAULTS, "True") | dict.fromkeys(
        FAULTS_OF_SECOND, 'os.environ.get("RANK") == "1"'
    )
    for name, body in (FAULTS | FAULTS_OF_SECOND).items():
        text = TEMPLATE.format(name=name, batch=BATCH, body=body, when=whens[name])
        (rewards / f"{name}.py").write_text(text, encoding="utf-8")
    return folder
