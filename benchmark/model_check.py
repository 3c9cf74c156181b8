"""Measure the embedded model: do its pictures show what was asked, and can the scorer tell?

Three shares, each with its count:

* real: emoji composites that no training saw (two of the sixteen background and mirror variants of
  each picture are held out), top-1 of the scorer among the 45 common animals;
* generated: pictures of "a ANIMAL, STYLE style, on a COLOUR background" at the suite's guidance,
  top-1 of the scorer in the same way;
* background: generated pictures whose border is mostly of the asked colour, read by rule.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from diffusion.emoji.catalogue import COMMON_ANIMALS, STYLES
from diffusion.emoji.composites import BACKGROUND_NAMES, Composites, caption
from diffusion.ledger import Ledger
from diffusion.pipelines import load_policy
from diffusion.randomness import generator
from diffusion.rollout import sample
from rewards import load
from rewards.scorer import FOLDER, Scorer, load_scorer


@dataclass(frozen=True)
class Share:
    """How many of how many."""

    hits: int
    total: int
    misses: tuple[tuple[str, int], ...] = ()
    """Animals most often missed, with counts."""

    def __str__(self) -> str:
        text = f"{self.hits / self.total:.1%} ({self.hits} of {self.total})"
        if self.misses:
            text += "; most missed: " + ", ".join(f"{name} {n}" for name, n in self.misses)
        return text


@dataclass(frozen=True)
class Generated:
    """Pictures of each animal, a row an animal."""

    images: torch.Tensor
    """``[45 * n, 3, h, w]`` in [0, 1]."""
    prompts: list[str]
    animals: list[str]


def generate(
    model: str, images_per_animal: int, sampling_steps: int, guidance_scale: float, seed: int
) -> Generated:
    """Sample each animal with styles and backgrounds in turn, at eta 1."""
    policy = load_policy(
        model,
        seed=seed,
        ledger=Ledger(),
        sampling_steps=sampling_steps,
        guidance_scale=guidance_scale,
    )
    animals, prompts, generators = [], [], []
    for row, animal in enumerate(COMMON_ANIMALS):
        for column in range(images_per_animal):
            number = row + column
            style = list(STYLES)[number % len(STYLES)]
            background = BACKGROUND_NAMES[number % len(BACKGROUND_NAMES)]
            animals.append(animal)
            prompts.append(caption(animal, style, background))
            generators.append(generator(seed, "model check", animal, column))
    with torch.no_grad():
        latents = sample(policy, prompts, generators)
        images = torch.cat([policy.decode(part) for part in latents.split(64)])
    return Generated(images, prompts, animals)


def recognised(images: torch.Tensor, animals: list[str], scorer: Scorer) -> Share:
    """Top-1 of the scorer among the captions "a ANIMAL" of all 45."""
    texts = scorer.text_embedding([caption(animal) for animal in COMMON_ANIMALS])
    with torch.no_grad():
        parts = [scorer.image_embedding(part) @ texts.T for part in images.split(256)]
    best = torch.cat(parts).argmax(dim=1).tolist()
    missed = Counter(
        a for a, index in zip(animals, best, strict=True) if COMMON_ANIMALS[index] != a
    )
    return Share(len(animals) - missed.total(), len(animals), tuple(missed.most_common(5)))


def background_share(generated: Generated) -> Share:
    """Pictures with more than half of the border nearest to the asked colour."""
    values = load("background")(generated.images, generated.prompts)
    return Share(int((values > 0.5).sum()), len(values))


def held_out_composites(packages: Path, cache: Path) -> tuple[torch.Tensor, list[str]]:
    """All held-out composites of the common animals, and their animals."""
    composites = Composites.load(packages, cache)
    numbers = torch.arange(len(composites))
    numbers = numbers[Composites.held_out(numbers)]
    subjects = [composites.describe(number)[0] for number in numbers.tolist()]
    chosen = [index for index, subject in enumerate(subjects) if subject in COMMON_ANIMALS]
    return composites.render(numbers[chosen]), [subjects[index] for index in chosen]


def save_grid(images: torch.Tensor, columns: int, path: Path) -> None:
    """PNG of the pictures, ``columns`` a row, two pixels apart."""
    size = images.shape[-1] + 2
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * size, rows * size), "white")
    for index, image in enumerate((images * 255).round().byte().permute(0, 2, 3, 1).numpy()):
        sheet.paste(Image.fromarray(image), ((index % columns) * size, (index // columns) * size))
    sheet.save(path)


def check_model(
    model: str,
    images_per_animal: int,
    sampling_steps: int,
    guidance_scale: float,
    seed: int,
    packages: Path | None,
    grid: Path | None,
) -> dict[str, str]:
    """The shares by name, as text; the real one only where the emoji ``packages`` are at hand."""
    scorer = load_scorer(FOLDER, torch.device("cpu"))
    shares: dict[str, str] = {}
    if packages is not None:
        images, animals = held_out_composites(packages, packages / "cache")
        shares["scorer, held-out real composites"] = str(recognised(images, animals, scorer))
    generated = generate(model, images_per_animal, sampling_steps, guidance_scale, seed)
    shares["scorer, generated"] = str(recognised(generated.images, generated.animals, scorer))
    shares["background, generated"] = str(background_share(generated))
    if grid is not None:
        save_grid(generated.images, images_per_animal * 3, grid)
    return shares
