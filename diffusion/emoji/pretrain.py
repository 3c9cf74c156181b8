"""Train the emoji model and its scorer from nothing.

    python -m diffusion.emoji.pretrain fetch   pretrain/packages   # once, needs npm
    python -m diffusion.emoji.pretrain train   pretrain            # resumes after a kill
    python -m diffusion.emoji.pretrain install pretrain            # into this checkout

``train`` runs the phases of a recipe one after another, each in its own folder with a log and a
checkpoint; a finished phase is not run again. Phases "scorer" and "vae" do not depend on each
other and can be run side by side with ``--phase``. It takes a GPU where there is one, for which
``--recipe gpu`` is made.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from diffusers import AutoencoderKL

from diffusion.emoji.catalogue import fetch_packages, missing_packages, tarball
from diffusion.emoji.composites import Composites
from diffusion.emoji.curriculum import all_alike, animals_first
from diffusion.emoji.export import export_pipeline
from diffusion.emoji.loop import Schedule
from diffusion.emoji.scorer_training import save_scorer, train_scorer
from diffusion.emoji.text import build_tokenizer, caption_corpus
from diffusion.emoji.unet_training import encode_all, train_unet
from diffusion.emoji.vae_training import build_vae, train_vae

CPU = torch.device("cpu")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # errors as plain lines
    help="Train the emoji model.",
)


@dataclass(frozen=True)
class Recipe:
    """Every number that decides the weights; the defaults made those in the repository."""

    seed: int = 0
    vae: Schedule = field(default_factory=lambda: Schedule(2000, 1.5e-3, weight_decay=1e-4))
    """All pictures alike."""
    vae_animals: Schedule = field(
        default_factory=lambda: Schedule(1000, 1e-3, weight_decay=1e-4, decay_share=0.6, warmup=50)
    )
    """Goes on from ``vae``, animals first, with less weight on perceptual features."""
    perceptual_weights: tuple[float, float] = (0.1, 0.02)
    vae_batch: int = 32
    scorer: Schedule = field(default_factory=lambda: Schedule(1600, 1e-3, weight_decay=0.05))
    scorer_batch: int = 128
    unet: Schedule = field(default_factory=lambda: Schedule(3400, 8e-4, warmup=200))
    unet_batch: int = 64


RECIPES = {
    "two-cores": Recipe(),
    "gpu": Recipe(
        vae=Schedule(1200, 1.5e-3, weight_decay=1e-4, decay_share=0.2),
        vae_animals=Schedule(1000, 1e-3, weight_decay=1e-4, decay_share=0.7, warmup=50),
        vae_batch=256,
        unet=Schedule(5000, 1e-3, warmup=500, decay_share=0.5, ema_decay=0.999),
        unet_batch=512,
    ),
}
"""``two-cores`` made the weights in the repository; ``gpu`` shows the networks 6 to 12 times as
many pictures."""


def smallest(recipe: Recipe, steps: int = 2, batch: int = 4) -> Recipe:
    """The recipe cut to ``steps`` steps of ``batch`` a phase, to test the path."""
    short = {
        name: replace(getattr(recipe, name), steps=steps, checkpoint_seconds=0)
        for name in ("vae", "vae_animals", "scorer", "unet")
    }
    return replace(recipe, vae_batch=batch, scorer_batch=batch, unet_batch=batch, **short)


class Phases:
    """The phases of a recipe on one data set and device, results under ``work``."""

    def __init__(self, recipe: Recipe, composites: Composites, work: Path, device: torch.device):
        self.recipe, self.composites, self.work = recipe, composites.to(device), work
        self.device = device
        self.tokenizer = build_tokenizer(caption_corpus(composites.pictures))
        self.animals_first = animals_first(composites.pictures).to(device)

    def vae(self) -> None:
        """Autoencoder, all pictures alike."""
        with torch.random.fork_rng(devices=[]):  # layers initialise from the global generator
            torch.manual_seed(self.recipe.seed)
            vae = build_vae()
        weights = all_alike(self.composites.pictures).to(self.device)
        self._train_vae("vae", vae, weights, self.recipe.vae, 0)

    def vae_animals(self) -> None:
        """Autoencoder, animals first."""
        vae = AutoencoderKL.from_pretrained(self.work / "vae" / "out")
        self._train_vae("vae_animals", vae, self.animals_first, self.recipe.vae_animals, 1)

    def _train_vae(
        self, name: str, vae: AutoencoderKL, weights: torch.Tensor, schedule: Schedule, index: int
    ) -> None:
        vae = train_vae(
            vae,
            self.composites,
            weights,
            self.recipe.perceptual_weights[index],
            self.work / name,
            schedule,
            self.recipe.vae_batch,
            self.recipe.seed + index,
        )
        vae.save_pretrained(self.work / name / "out")

    def scorer(self) -> None:
        """Image-text dual encoder and style head."""
        recipe = self.recipe
        modules = train_scorer(
            self.composites,
            self.tokenizer,
            self.animals_first,
            self.work / "scorer",
            recipe.scorer,
            recipe.scorer_batch,
            recipe.seed,
        )
        save_scorer(modules, self.tokenizer, self.work / "scorer" / "out")

    def unet(self) -> None:
        """UNet and text encoder on the finished autoencoder's latents."""
        vae = AutoencoderKL.from_pretrained(self.work / "vae_animals" / "out")
        latents = encode_all(vae, self.composites, self.work / "latents.pt")
        modules = train_unet(
            self.composites,
            latents,
            vae.config.scaling_factor,
            self.tokenizer,
            self.animals_first,
            self.work / "unet",
            self.recipe.unet,
            self.recipe.unet_batch,
            self.recipe.seed,
        )
        out = self.work / "unet" / "out"
        export_pipeline(modules["unet"], vae, modules["text_encoder"], self.tokenizer, out)


PHASES = ("vae", "vae_animals", "scorer", "unet")
GOES_ON_FROM = {"vae_animals": "vae", "unet": "vae_animals"}


def run_phases(
    recipe: Recipe,
    composites: Composites,
    work: Path,
    phases: list[str],
    device: torch.device = CPU,
) -> None:
    """Run phases that are not finished, in the order given."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as convolutions have it anyway
    runner = Phases(recipe, composites, work, device)
    work.mkdir(parents=True, exist_ok=True)
    (work / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n")
    for phase in phases:
        finished = work / phase / "finished"
        if finished.exists():
            print(f"{phase}: already finished")
            continue
        run: Callable[[], None] = getattr(runner, phase)
        run()
        finished.touch()


@app.command()
def fetch(packages: Path) -> None:
    """Download the emoji packages with npm, about 160 MB."""
    try:
        fetch_packages(packages)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise typer.BadParameter(f"cannot download with npm: {error}") from error


@app.command()
def train(
    work: Path,
    packages: Annotated[Path | None, typer.Option(help="Default: WORK/packages.")] = None,
    phase: Annotated[list[str] | None, typer.Option(help=f"Any of {', '.join(PHASES)}.")] = None,
    recipe: Annotated[str, typer.Option(help=f"One of {', '.join(RECIPES)}.")] = "two-cores",
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
) -> None:
    """Train all phases, or those named, going on where an earlier call stopped."""
    if recipe not in RECIPES:
        raise typer.BadParameter(f"unknown recipe {recipe!r}, known: {', '.join(RECIPES)}")
    unknown = set(phase or ()) - set(PHASES)
    if unknown:
        raise typer.BadParameter(f"unknown phase {unknown.pop()!r}, known: {', '.join(PHASES)}")
    phases = phase or list(PHASES)
    for name, before in GOES_ON_FROM.items():
        if name in phases and before not in phases and not (work / before / "finished").exists():
            raise typer.BadParameter(f"phase {name!r} goes on from {before!r}: train that first")
    packages = packages or work / "packages"
    if missing := missing_packages(packages):
        raise typer.BadParameter(f"no {tarball(packages, missing[0])}: fetch the packages first")
    composites = Composites.load(packages, work / "cache")
    run_phases(RECIPES[recipe], composites, work, phases, _device(device))


def _device(name: str) -> torch.device:
    """Device of a name; ``auto`` takes a GPU where there is one."""
    if name not in ("auto", "cpu", "cuda"):
        raise typer.BadParameter(f"unknown device {name!r}, known: auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise typer.BadParameter("no GPU here: --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@app.command()
def install(work: Path) -> None:
    """Copy the finished model and scorer over the ones in this checkout."""
    root = Path(__file__).parents[2]
    for name in ("unet", "scorer"):
        if not (work / name / "finished").exists():
            raise typer.BadParameter(f"phase {name!r} is not finished in {work}")
    for source, target in (
        (work / "unet" / "out", root / "diffusion" / "emoji" / "weights"),
        (work / "scorer" / "out", root / "rewards" / "emoji_scorer"),
    ):
        shutil.copytree(source, target, dirs_exist_ok=True)
        print(f"wrote {target}")


if __name__ == "__main__":
    app()
