"""The embedded model draws what it is asked, a few animals at a time."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from benchmark.model_check import background_share, generate, recognised, save_grid
from diffusion.emoji.catalogue import COMMON_ANIMALS
from diffusion.emoji.composites import caption
from rewards.scorer import FOLDER, load_scorer


def test_the_embedded_model_draws_animals_on_the_asked_background(tmp_path: Path) -> None:
    generated = generate("emoji", 1, sampling_steps=10, guidance_scale=3.0, seed=0)
    assert generated.animals == COMMON_ANIMALS
    share = recognised(
        generated.images, generated.animals, load_scorer(FOLDER, torch.device("cpu"))
    )
    assert share.hits >= 27, share  # chance is 1 of 45
    assert background_share(generated).hits >= 40
    save_grid(generated.images, 9, tmp_path / "grid.png")
    assert Image.open(tmp_path / "grid.png").size == (9 * 66, 5 * 66)


def test_wrong_pictures_are_not_recognised() -> None:
    scorer = load_scorer(FOLDER, torch.device("cpu"))
    grey = torch.full((45, 3, 64, 64), 0.5)
    share = recognised(grey, COMMON_ANIMALS, scorer)
    assert share.hits == 1  # one answer for all
    assert sum(count for _, count in share.misses) == 5
    assert caption("ant") == "an ant"
