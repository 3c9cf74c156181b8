"""Composites: what a picture of the training set looks like, and which are held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion.emoji.catalogue import STYLES
from diffusion.emoji.composites import (
    BACKGROUND_NAMES,
    BACKGROUNDS,
    COMPOSITES_PER_PICTURE,
    Composites,
    caption,
    draw_mentions,
)
from diffusion.emoji.curriculum import all_alike, animals_first
from diffusion.randomness import generator
from rewards.background import COLOURS
from tests.diffusion.emoji.conftest import DISC


def number(composites: Composites, label: str, style: str, background: str, mirrored: bool) -> int:
    keys = [(picture.label, picture.style) for picture in composites.pictures]
    variant = 2 * BACKGROUND_NAMES.index(background) + mirrored
    return keys.index((label, style)) * COMPOSITES_PER_PICTURE + variant


def to_bytes(images: torch.Tensor) -> torch.Tensor:
    return (images * 255).round().to(torch.int)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("fox",), "a fox"),
        (("owl",), "an owl"),
        (("fox", "fluent"), "a fox, fluent style"),
        (("fox", None, "blue"), "a fox, on a blue background"),
        (("ant", "noto", "yellow"), "an ant, noto style, on a yellow background"),
        (("fox", "fluent", "blue"), "a fox, fluent style, on a blue background"),
    ],
)
def test_captions(parts: tuple[str | None, ...], text: str) -> None:
    assert caption(*parts) == text  # type: ignore[arg-type]


def test_the_background_reward_knows_the_same_colours() -> None:
    assert BACKGROUNDS == COLOURS


@pytest.mark.parametrize("background", BACKGROUND_NAMES)
@pytest.mark.parametrize("style", list(STYLES))
def test_border_and_disc_have_their_exact_colours(
    composites: Composites, style: str, background: str
) -> None:
    picture = number(composites, "fox", style, background, mirrored=False)
    image = to_bytes(composites.render(torch.tensor([picture])))[0]
    assert image.shape == (3, 64, 64)
    colour = torch.tensor(BACKGROUNDS[background])[:, None]
    border = torch.ones(64, 64, dtype=torch.bool)
    border[5:-5, 5:-5] = False
    assert (image[:, border] == colour).all()
    assert image[:, 32, 5 + 54 * 3 // 8].tolist() == list(DISC[style])  # the disc's middle
    assert (image[:, 32, 50] == colour[:, 0]).all()  # where the picture is transparent


def test_mirroring_flips_the_picture_and_not_the_background(composites: Composites) -> None:
    plain, mirrored = (
        composites.render(torch.tensor([number(composites, "fox", "noto", "red", side)]))
        for side in (False, True)
    )
    assert torch.equal(mirrored, plain.flip(3))
    assert not torch.equal(mirrored, plain)


def test_colours_of_transparent_pixels_never_show(composites: Composites) -> None:
    """Loud green lies under the transparent part; edges mix disc and background alone."""
    picture = number(composites, "fox", "noto", "white", mirrored=False)
    red, green, blue = to_bytes(composites.render(torch.tensor([picture])))[0]
    assert (green - blue).max() <= 12
    assert (green - red).max() <= 0


@pytest.mark.parametrize("background", BACKGROUND_NAMES)
def test_edges_lie_between_disc_and_background(composites: Composites, background: str) -> None:
    """Up to what Lanczos overshoots; colours not multiplied by alpha would add up to far more."""
    picture = number(composites, "fox", "noto", background, mirrored=False)
    image = to_bytes(composites.render(torch.tensor([picture])))[0]
    ends = torch.tensor([DISC["noto"], BACKGROUNDS[background]])
    assert (image.amax(dim=(1, 2)) <= ends.amax(dim=0) + 36).all()
    assert (image.amin(dim=(1, 2)) >= ends.amin(dim=0) - 36).all()


def test_images_are_in_range_and_in_batch_order(composites: Composites) -> None:
    numbers = torch.tensor([17, 3, len(composites) - 1, 17])
    images = composites.render(numbers)
    assert images.shape == (4, 3, 64, 64) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1
    for row, chosen in enumerate(numbers):
        assert torch.equal(images[row], composites.render(chosen[None])[0])


def test_numbers_describe_what_is_rendered(composites: Composites) -> None:
    seen = set()
    for index in range(len(composites)):
        subject, style, background = composites.describe(index)
        corner = to_bytes(composites.render(torch.tensor([index])))[0, :, 0, 0]
        assert corner.tolist() == list(BACKGROUNDS[background])
        seen.add((subject, style, background))
    assert len(composites) == 18 * COMPOSITES_PER_PICTURE
    assert len(seen) == 18 * len(BACKGROUNDS)


def test_two_of_sixteen_are_held_out_a_different_pair_each(composites: Composites) -> None:
    held = composites.held_out(torch.arange(len(composites))).reshape(-1, COMPOSITES_PER_PICTURE)
    assert (held.sum(dim=1) == 2).all()
    assert len({tuple(row.tolist()) for row in held[:8]}) == 8


def test_held_out_composites_are_never_drawn(composites: Composites) -> None:
    everything = torch.arange(len(composites))
    drawn = composites.draw(20_000, all_alike(composites.pictures), generator(0, "draw"))
    assert set(drawn.tolist()) == set(everything[~composites.held_out(everything)].tolist())


def test_pictures_are_drawn_in_proportion(composites: Composites) -> None:
    weights = torch.zeros(len(composites.pictures))
    weights[2], weights[5] = 3.0, 1.0
    drawn = composites.draw(4000, weights, generator(0)) // COMPOSITES_PER_PICTURE
    assert set(drawn.tolist()) == {2, 5}
    assert (drawn == 2).float().mean().item() == pytest.approx(0.75, abs=0.03)


def test_animals_come_first(composites: Composites) -> None:
    weights = animals_first(composites.pictures)
    subjects = [picture.subject for picture in composites.pictures]
    for animal in ("cat", "fox", "spider"):
        share = weights[[subject == animal for subject in subjects]]
        assert share.sum().item() == pytest.approx(0.5 / 3)
        assert (share == share[0]).all()
    assert weights[[s == "polar bear" for s in subjects]].sum().item() == pytest.approx(0.18)
    assert (weights > 0).all()


def test_mentions_come_in_their_shares() -> None:
    style, background = draw_mentions(60_000, generator(0)).unbind(1)
    assert (style & background).float().mean().item() == pytest.approx(1 / 2, abs=0.01)
    assert (style ^ background).float().mean().item() == pytest.approx(1 / 3, abs=0.01)
    assert (~style & ~background).float().mean().item() == pytest.approx(1 / 6, abs=0.01)
    assert style.float().mean().item() == pytest.approx(background.float().mean().item(), abs=0.01)


def test_a_second_load_reads_the_cache(packages: Path, tmp_path: Path) -> None:
    first = Composites.load(packages, tmp_path / "cache")
    second = Composites.load(tmp_path / "nowhere", tmp_path / "cache")
    assert second.pictures == first.pictures
    assert torch.equal(second.cutouts, first.cutouts)


def test_an_unfinished_cache_is_read_anew(
    packages: Path, composites: Composites, tmp_path: Path
) -> None:
    """A kill before the index is in place: arrays cut short, the index under its other name."""
    np.save(tmp_path / "cutouts.npy", np.zeros(3))
    (tmp_path / "pictures.part").write_text("[{")
    again = Composites.load(packages, tmp_path)
    assert again.pictures == composites.pictures
    assert torch.equal(again.cutouts, composites.cutouts)
