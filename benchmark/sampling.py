"""``benchmark sample``: pictures of trained cells for prompts of one's own.

All noise of a picture follows from the seed, the prompt and the picture's number, so cells of one
model start from the same, and asking for more pictures leaves the first ones as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from benchmark.errors import NothingToReport, UsageError
from benchmark.suite import ModelSettings
from results import store
from results.records import CellConfig, StatusRecord
from results.store import ResultsError

if TYPE_CHECKING:
    from diffusion.latent_diffusion import LatentDiffusion

WEIGHTS = {"lora": "lora", "full": "unet"}
"""What trains to the folder of its weights in a cell."""
BATCH_SIZE = 8
"""Pictures at a time."""


def sample(where: Path, prompts: Sequence[str], count: int, out: Path, seed: int) -> list[Path]:
    """Draw ``count`` pictures of each prompt from a cell, or from every cell of a run that has
    trained weights; the files written, ``out/<cell>/<prompt>-<picture>.png``.

    Raises ``NothingToReport`` where there is nothing to draw from, ``UsageError`` for an empty
    prompt, files that are there already, and weights that cannot be loaded.
    """
    if any(not prompt.strip() for prompt in prompts):
        raise UsageError("--prompt: a prompt is empty")
    cells = _cells(where)
    wanted = _all(prompts, count)
    targets = [_target(out / cell.name, *each) for cell in cells for each in wanted]
    if taken := [path for path in targets if path.exists()]:
        raise UsageError(f"--out {out}: {taken[0]} is there already; name another folder")
    written: list[Path] = []
    for cell in cells:
        written += _draw(cell, prompts, count, out / cell.name, seed)
    return written


def _all(prompts: Sequence[str], count: int) -> list[tuple[int, int]]:
    return [(prompt, image) for prompt in range(len(prompts)) for image in range(count)]


def _target(folder: Path, prompt: int, image: int) -> Path:
    return folder / f"{prompt}-{image}.png"


def _cells(where: Path) -> list[Path]:
    """Folders of the cells to draw from."""
    if (where / "config.json").is_file():
        if not _is_done(where):
            raise NothingToReport(f"{where}: the cell is not done")
        if not _has_weights(where) and _config(where).method != "base":
            raise NothingToReport(f"{where}: the cell has no trained weights")
        return [where]
    if not (where / "run.json").is_file():
        raise NothingToReport(f"{where}: no run and no cell (no run.json, no config.json in it)")
    folders = sorted(path.parent for path in where.glob("cells/*/config.json"))
    found = [folder for folder in folders if _is_done(folder) and _has_weights(folder)]
    if not found:
        raise NothingToReport(f"{where}: no cell of the run is done and has trained weights")
    return found


def _is_done(cell: Path) -> bool:
    try:
        return store.read_json(cell / "status.json", StatusRecord).state == "done"
    except ResultsError:
        return False


def _has_weights(cell: Path) -> bool:
    return any((cell / name).is_dir() for name in WEIGHTS.values())


def _config(cell: Path) -> CellConfig:
    try:
        return store.read_json(cell / "config.json", CellConfig)
    except ResultsError as error:
        raise NothingToReport(str(error)) from error


def _draw(cell: Path, prompts: Sequence[str], count: int, out: Path, seed: int) -> list[Path]:
    from benchmark.checkpoints import save_picture
    from diffusion.randomness import generator
    from diffusion.rollout import sample as sample_latents
    from rewards.interface import to_uint8

    config = _config(cell)
    policy = _policy(cell, config)
    eta = config.etas[0] if config.etas else None
    wanted = _all(prompts, count)
    written: list[Path] = []
    for start in range(0, len(wanted), BATCH_SIZE):
        part = wanted[start : start + BATCH_SIZE]
        texts = [prompts[prompt] for prompt, _ in part]
        generators = [generator(seed, "sample", prompts[p], image) for p, image in part]
        latents = sample_latents(policy, texts, generators, eta, len(part))
        for (prompt, image), picture in zip(part, latents, strict=True):
            pixels = to_uint8(policy.decode(picture[None]).detach())[0]
            path = _target(out, prompt, image)
            try:
                save_picture(path, pixels)
            except OSError as error:
                raise UsageError(f"--out: cannot write {path}: {error.strerror}") from error
            written.append(path)
    return written


def _policy(cell: Path, config: CellConfig) -> LatentDiffusion:
    from safetensors import SafetensorError

    from benchmark.models import find_model, output
    from benchmark.policies import build_policy
    from diffusion.latent_diffusion import LatentDiffusion
    from diffusion.ledger import Ledger

    try:
        settings = ModelSettings.model_validate({**config.model, "device": "auto"})
    except ValidationError as error:
        raise NothingToReport(f"{cell}: its model is none of this version's") from error
    if output(settings.name) != "image":
        raise UsageError(f"{cell}: model {settings.name!r} makes points, not pictures")
    find_model(settings.name)
    try:
        policy = build_policy(settings, config.seed, Ledger())
        assert isinstance(policy, LatentDiffusion)  # the only kind that makes images
        if _has_weights(cell):
            policy.load_weights(cell / WEIGHTS[settings.trainable])
    except (OSError, ValueError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"{cell}: its weights cannot be loaded: {reason}") from error
    return policy
