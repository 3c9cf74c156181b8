"""The asked background colour, read off the border."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import rewards
from rewards.background import BORDER, COLOURS, asked_colour, border_pixels, nearest_colours
from rewards.interface import RewardInputError


def on(colour: str) -> str:
    return f"a fox, fluent style, on a {colour} background"


def plain(colour: str) -> Tensor:
    return (torch.tensor(COLOURS[colour]) / 255).view(1, 3, 1, 1).repeat(1, 1, 64, 64)


@pytest.mark.parametrize("colour", COLOURS)
def test_each_colour_is_itself_and_no_other(colour: str):
    reward = rewards.load("background")
    images = plain(colour).expand(len(COLOURS), -1, -1, -1)
    scores = reward(images, [on(other) for other in COLOURS])
    assert scores.tolist() == [float(other == colour) for other in COLOURS]


@pytest.mark.parametrize("colour", COLOURS)
def test_a_decoder_s_noise_does_not_matter(colour: str):
    noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    images = (plain(colour) + 12 / 255 * noise).clamp(0, 1)
    assert rewards.load("background")(images, [on(colour)]).item() > 0.99


def test_only_the_border_counts():
    image = plain("blue")
    image[..., BORDER:-BORDER, BORDER:-BORDER] = plain("red")[..., :54, :54]
    assert rewards.load("background")(image, [on("blue")]).item() == 1.0


def test_the_score_is_the_share_of_the_border():
    image = plain("blue")
    image[:, :, :BORDER] = plain("red")[:, :, :BORDER]
    pixels = 64 * 64 - 54 * 54
    scores = rewards.load("background")(image.repeat(2, 1, 1, 1), [on("red"), on("blue")])
    assert scores.tolist() == pytest.approx([64 * BORDER / pixels, 1 - 64 * BORDER / pixels])


def test_nearest_is_by_distance_in_rgb():
    pixels = torch.rand(2, 3, 500, generator=torch.Generator().manual_seed(1))
    palette = torch.tensor(list(COLOURS.values())).double() / 255
    expected = torch.cdist(pixels.double().movedim(1, -1), palette.expand(2, -1, -1)).argmin(-1)
    assert torch.equal(nearest_colours(pixels), expected)


def test_pictures_without_an_inside_are_all_border():
    assert border_pixels(torch.zeros(1, 3, 7, 9)).shape == (1, 3, 63)
    assert border_pixels(torch.zeros(1, 3, 64, 48)).shape == (1, 3, 64 * 48 - 54 * 38)


@pytest.mark.parametrize(
    ("prompt", "colour"),
    [
        ("a fox, fluent style, on a blue background", "blue"),
        ("an owl, on a Red background", "red"),
        ("a blue butterfly on a yellow background", "yellow"),
        ("a cat on an purple background, noto style", "purple"),
    ],
)
def test_asked_colour(prompt: str, colour: str):
    assert asked_colour(prompt) == colour


@pytest.mark.parametrize("prompt", ["a fox, fluent style", "a blue fox", ""])
def test_a_prompt_must_ask_for_a_background(prompt: str):
    with pytest.raises(
        RewardInputError, match="asks for no background.*white, black, red"
    ) as caught:
        rewards.load("background")(plain("blue"), [prompt])
    assert repr(prompt) in str(caught.value) and "\n" not in str(caught.value)


def test_a_prompt_must_ask_for_a_known_colour():
    with pytest.raises(RewardInputError, match="asks for 'grean'; the nearest name is 'green'"):
        rewards.load("background")(plain("green"), ["a fox, on a grean background"])


def test_colours_are_those_of_the_training_pictures():
    from diffusion.emoji import composites

    assert COLOURS == composites.BACKGROUNDS
    assert BORDER == (composites.SIZE - composites.EMOJI_SIZE) // 2
    assert all(asked_colour(composites.caption("fox", "noto", name)) == name for name in COLOURS)
