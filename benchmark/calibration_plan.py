"""What a calibration measures here: all that it names looked up and loaded, then scored."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

import rewards
from benchmark import encoders, models
from benchmark.calibration import Calibration, Kind
from benchmark.encoders import Encoder
from benchmark.errors import NothingToReport, UsageError, did_you_mean
from benchmark.evaluation import Evaluator
from benchmark.model_settings import ModelSettings
from benchmark.policies import build_policy
from benchmark.protocol import model_identity
from diffusion.ledger import Ledger
from diffusion.policy import Policy
from results import calibration as arithmetic
from results.calibration import Measured
from rewards import Reward

PART = 128
"""Images that are drawn and scored before the next ones, about; bounds memory."""
Key = tuple[Kind, str, float]
"""Kind and name of a score, and eta."""


@dataclass(frozen=True)
class Choices:
    """What the command line says; ``None`` leaves it to the calibration."""

    model: str | None = None
    device: str | None = None
    images: int | None = None
    prompts: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Plan:
    """What is measured, all of it checked and loaded."""

    calibration: Calibration
    prompts: tuple[str, ...]
    """All of the calibration's."""
    chosen: tuple[int, ...]
    """Which of them are drawn, evenly over the list."""
    images: int
    seed: int
    policy: Policy
    model: str
    """Digest of its weights, or the hub id."""
    rewards: Mapping[str, Reward]
    encoders: Mapping[str, Encoder]
    versions: Mapping[tuple[Kind, str], str]


def prepare(calibration: Calibration, choices: Choices) -> Plan:
    """Everything checked and loaded, the model last; raises ``UsageError``."""
    settings = _model_settings(calibration, choices)
    device = torch.device(settings.device)
    judges = {name: _reward(calibration, name) for name in calibration.rewards}
    encode = {name: _encoder(calibration, name, device) for name in calibration.encoders}
    prompts = calibration.read_prompts()
    count = len(prompts) if choices.prompts is None else choices.prompts
    if count > len(prompts):
        raise UsageError(f"--prompts {count}: calibration {calibration.name} has {len(prompts)}")
    folder = models.find_model(settings.name)
    try:
        for reward in judges.values():
            reward.check_prompts(prompts)
        policy = build_policy(settings, 0, Ledger())
    except (OSError, ValueError) as error:
        raise UsageError(f"calibration {calibration.name}: {_first_line(error)}") from error
    versions: dict[tuple[Kind, str], str] = {}
    versions |= {("reward", name): reward.version for name, reward in judges.items()}
    versions |= {("diversity", name): encoders.version(name) for name in encode}
    return Plan(
        calibration=calibration,
        prompts=prompts,
        chosen=tuple(index * len(prompts) // count for index in range(count)),
        images=choices.images or calibration.images_per_prompt,
        seed=calibration.seed if choices.seed is None else choices.seed,
        policy=policy,
        model=model_identity(settings.name, folder),
        rewards=judges,
        encoders=encode,
        versions=versions,
    )


def _model_settings(calibration: Calibration, choices: Choices) -> ModelSettings:
    """With the name and device chosen; the device is a real one."""
    settings = calibration.model
    name = choices.model or settings.name
    if models.output(name) != "image":
        raise UsageError(f"--model {name}: it makes points, and calibrations score images")
    device = choices.device or settings.device
    here = torch.cuda.is_available()
    if device == "cuda" and not here:
        raise UsageError("--device cuda: there is no GPU that torch can use")
    if device == "auto":
        device = "cuda" if here else "cpu"
    return settings.model_copy(update={"name": name, "device": device})


def _reward(calibration: Calibration, name: str) -> Reward:
    known = rewards.registry()
    if name not in known or known[name].scores != "image":
        images = [each for each, kind in known.items() if kind.scores == "image"]
        hint = did_you_mean(name, images)
        raise UsageError(f"calibration {calibration.name}: unknown reward {name!r}; {hint}")
    try:
        return rewards.load(name)
    except (OSError, ValueError) as error:
        raise UsageError(f"calibration {calibration.name}: {error}") from error


def _encoder(calibration: Calibration, name: str, device: torch.device) -> Encoder:
    known = encoders.registry()
    if name not in known or known[name].input != "image":
        images = [each for each, source in known.items() if source.input == "image"]
        hint = did_you_mean(name, images)
        raise UsageError(f"calibration {calibration.name}: unknown encoder {name!r}; {hint}")
    try:
        return encoders.load(name, device)
    except (OSError, ValueError, ImportError) as error:
        raise UsageError(f"calibration {calibration.name}: {error}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def measure(plan: Plan) -> dict[Key, Measured]:
    """Every score under every sampler.

    Raises ``NothingToReport`` for images that are not finite or have no direction.
    """
    scores: dict[Key, list[Any]] = {}
    prompts = [plan.prompts[index] for index in plan.chosen]
    step = max(1, PART // plan.images)
    for eta in plan.calibration.etas:
        count = f"{len(prompts) * plan.images:,} images"
        print(f"eta {eta:g}: {count} on {plan.policy.device}", flush=True)
        for start in range(0, len(prompts), step):
            part = Evaluator(
                policy=plan.policy,
                prompts=prompts[start : start + step],
                images_per_prompt=plan.images,
                seed=plan.seed,
                batch_size=plan.calibration.batch_size,
                rewards=plan.rewards,
                encoders=plan.encoders,
                eta=eta,
            ).evaluate()
            for name, values in part.rewards.items():
                scores.setdefault(("reward", name, eta), []).extend(values)
            for name, features in part.features.items():
                scores.setdefault(("diversity", name, eta), []).extend(features.numpy())
    of: dict[Kind, Callable[[Any], Measured]]
    of = {"reward": arithmetic.of_reward, "diversity": arithmetic.of_diversity}
    found = {key: of[key[0]](values) for key, values in scores.items()}
    for (_, name, eta), measured in found.items():
        if not math.isfinite(measured.value):
            raise NothingToReport(f"{name} of the images at eta {eta:g} is not finite")
    return found
