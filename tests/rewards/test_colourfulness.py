"""Colourfulness against published and hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import rewards
from tests.how_we_know import Record


def halves(left: tuple, right: tuple, share: float = 0.5) -> Tensor:
    image = torch.empty(1, 3, 64, 64)
    column = round(64 * share)
    image[..., :column] = torch.tensor(left, dtype=torch.float32).view(3, 1, 1)
    image[..., column:] = torch.tensor(right, dtype=torch.float32).view(3, 1, 1)
    return image


RED, BLUE, CYAN, GREY = (1, 0, 0), (0, 0, 1), (0, 1, 1), (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (halves(GREY, GREY), 0.0),
        (halves((0, 0, 0), (1, 1, 1)), 0.0),
        (halves(RED, RED), 0.855296),
        (halves(RED, BLUE), 2.726187),
    ],
    ids=["grey", "black and white", "red", "red and blue"],
)
def test_golden_values(image: Tensor, expected: float, evidence: Record):
    reward = rewards.load("colourfulness")
    for score in (reward(image, [""]), reward.differentiable_score(image, [""])):
        evidence(
            "colourfulness of plain and two-coloured pictures",
            abs(score.item() - expected),
            2e-5,
            "0 of grey, 0.855296 of red, 2.726187 of red beside blue (Hasler and Suesstrunk)",
        )


def test_against_the_formula_in_numpy(varied_images, evidence: Record):
    images = varied_images(12, seed=7)
    red, green, blue = np.rint(images.numpy() * 255).astype(np.float64).transpose(1, 0, 2, 3)
    rg, yb = red - green, 0.5 * (red + green) - blue
    deviation = np.sqrt(rg.std((1, 2)) ** 2 + yb.std((1, 2)) ** 2)
    mean = np.sqrt(rg.mean((1, 2)) ** 2 + yb.mean((1, 2)) ** 2)
    expected = (deviation + 0.3 * mean) / 100
    scores = rewards.load("colourfulness")(images, [""] * 12)
    evidence(
        "colourfulness is its formula in NumPy",
        float(np.abs(scores.numpy() - expected).max()),
        2e-5,
        "sqrt(var rg + var yb) + 0.3 sqrt(mean(rg)^2 + mean(yb)^2), float64, over 100",
    )


def test_the_declared_maximum_is_reached():
    reward = rewards.load("colourfulness")
    scores = [reward(halves(RED, CYAN, share), [""]).item() for share in (0.5, 41 / 64, 0.75)]
    high = reward.range[1]
    assert high is not None and max(scores) <= high + 1e-5
    assert max(scores) == scores[1] == pytest.approx(high, abs=1e-4)


def test_gradient_in_double_precision(varied_images):
    images = varied_images(6, size=10)[[1, 4, 5]].double().requires_grad_()
    reward = rewards.load("colourfulness")
    assert torch.autograd.gradcheck(lambda x: reward.score(x, [""] * 3), images, fast_mode=True)


def test_gradient_of_grey_is_zero():
    image = halves(GREY, GREY).requires_grad_()
    rewards.load("colourfulness").differentiable_score(image, [""]).sum().backward()
    assert image.grad is not None and image.grad.abs().max() < 1e-3
