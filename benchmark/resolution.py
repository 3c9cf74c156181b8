"""A suite's names looked up: methods with their options checked, rewards, weights.

Looking methods and rewards up imports torch, so this happens after all that can be checked without.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmark import composites, encoders, matrix, models
from benchmark.errors import UsageError, did_you_mean
from benchmark.matrix import Cell
from benchmark.suite import ECONOMIES, Suite
from benchmark.validation import KeyPath, Origins, validate
from methods import Method, MethodConfig
from methods import registry as method_registry
from rewards import Reward
from rewards import load as load_reward
from rewards import registry as reward_registry
from rewards.interface import RewardInputError


@dataclass(frozen=True)
class ResolvedSuite:
    """A suite with all it names found, ready to run."""

    suite: Suite
    """Its ``methods`` hold every option of every method, the controls included."""
    methods: dict[str, type[Method]]
    configs: dict[str, MethodConfig]
    rewards: dict[str, Reward]
    """Those trained on, and those that would be if the model made what they score."""
    judges: dict[str, Reward]
    """All that evaluations are scored by, those trained on first; they score what the model makes,
    images or points."""
    unscored: dict[str, str]
    """Other rewards that score what the model makes and cannot judge the test prompts, each
    with the reason."""

    def cells(self) -> list[Cell]:
        """All cells, those that do not apply included."""
        suite = self.suite
        output = models.output(suite.model.name)
        model, seeds = suite.model, suite.seeds
        return matrix.cells(self.methods, self.rewards, seeds, model.eta, output, model.processes)


def resolve(suite: Suite, origins: Origins) -> ResolvedSuite:
    """Find all that the suite names.

    Raises ``UsageError`` for an unknown method, option or reward, a method whose optional
    dependencies are not installed, or missing weights.
    """
    _check_model_settings(suite, origins)
    known = method_registry()
    chosen = matrix.with_controls(suite.methods)
    for name in chosen:
        _check_known("method", name, known, origins, ("methods", name))
        if reason := known[name].unavailable():
            raise UsageError(f"{origins.of(('methods', name))}: method {name!r} {reason}")
    configs = {
        name: validate(
            known[name].Config,
            _with_released(known[name], suite.methods.get(name, {}), origins),
            origins,
            prefix=("methods", name),
        )
        for name in chosen
    }
    _check_budget(configs, suite, origins)
    _check_processes(configs, suite, origins)
    rewards = {name: _find_reward(name, suite, origins, ("rewards",)) for name in suite.rewards}
    _check_prompts(rewards, suite)
    judges, unscored = _judges(rewards, suite, origins)
    options = {name: config.model_dump(mode="json") for name, config in configs.items()}
    return ResolvedSuite(
        suite=suite.model_copy(update={"methods": options}),
        methods={name: known[name] for name in chosen},
        configs=configs,
        rewards=rewards,
        judges=judges,
        unscored=unscored,
    )


def _with_released(
    kind: type[Method], options: Mapping[str, Any], origins: Origins
) -> dict[str, Any]:
    """Options with the published settings that ``released`` names filled in; others win."""
    rest = dict(options)
    release = rest.pop("released", None)
    if release is None:
        return rest
    if not isinstance(release, str) or release not in kind.RELEASED:
        place = origins.of(("methods", kind.name, "released"))
        raise UsageError(
            f"{place}: methods.{kind.name}.released: no released settings {release!r}; "
            f"{did_you_mean(str(release), kind.RELEASED)}"
        )
    return {**kind.RELEASED[release], **rest}


def _check_model_settings(suite: Suite, origins: Origins) -> None:
    """Raise ``UsageError`` for settings that the model cannot follow."""
    try:
        models.find_model(suite.model.name)
    except UsageError as error:
        raise UsageError(f"{origins.of(('model', 'name'))}: {error}") from error
    output = models.output(suite.model.name)
    known = encoders.registry()
    for name in suite.evaluation.encoders:
        if known[name].input != output:
            raise UsageError(
                f"{origins.of(('evaluation', 'encoders'))}: evaluation.encoders: {name} looks at "
                f"{known[name].input}s, and model {suite.model.name!r} makes {output}s"
            )
    wanted: dict[str, Any] = {"variance": "posterior"}
    if output == "point":
        wanted = {"guidance_scale": 1.0, "trainable": "full", "dtype": "float32", **ECONOMIES}
    elif suite.model.dtype == "float16" and suite.model.trainable == "full":
        raise UsageError(
            f"{origins.of(('model', 'trainable'))}: model.trainable: a whole UNet does not train "
            f"in float16, which rounds small updates away: take lora, bfloat16 or float32"
        )
    for key, value in wanted.items():
        if getattr(suite.model, key) != value:
            place = origins.of(("model", key))
            raise UsageError(f"{place}: model.{key}: model {suite.model.name!r} takes {value} only")


def _check_budget(configs: dict[str, MethodConfig], suite: Suite, origins: Origins) -> None:
    """Raise ``UsageError`` for a budget in which a method cannot train once."""
    for name, config in configs.items():
        if suite.budget.images < config.images_per_round:
            raise UsageError(
                f"{origins.of(('budget', 'images'))}: budget.images: {suite.budget.images} images "
                f"are less than one round of {name}, {config.images_per_round}"
            )


def _check_processes(configs: dict[str, MethodConfig], suite: Suite, origins: Origins) -> None:
    """Raise ``UsageError`` where a process would have no trajectory of a round, or in an update
    too few for a baseline among them."""
    processes, place = suite.model.processes, origins.of(("model", "processes"))
    if processes == 1:
        return
    for name, config in configs.items():
        kind, images = method_registry()[name], config.images_per_round
        if not kind.trains or not kind.several_processes:
            continue
        if images < processes:
            raise UsageError(
                f"{place}: model.processes: {processes} processes, but a round of {name} has "
                f"{images} images"
            )
        least = images // getattr(config, "updates_per_round", 1) // processes
        if not kind.micro_batch_invariant and least < 2:
            raise UsageError(
                f"{place}: model.processes: {processes} processes leave one of them {least} image "
                f"in an update of {name}, whose baseline is taken among at least 2"
            )


def _judges(
    trained_on: dict[str, Reward], suite: Suite, origins: Origins
) -> tuple[dict[str, Reward], dict[str, str]]:
    """Every registered reward that can judge what the model makes of the test prompts, and
    why the others cannot; those of the other kind, images or points, are in neither.

    Optional ones judge where the suite names them: else the protocol, and what evaluation costs,
    would depend on which weights happen to lie on a machine.
    """
    output = models.output(suite.model.name)
    asked = {
        name: _find_reward(name, suite, origins, ("evaluation", "rewards"))
        for name in suite.evaluation.rewards
    }
    judges = {
        name: reward for name, reward in (trained_on | asked).items() if reward.scores == output
    }
    unscored: dict[str, str] = {}
    for name, kind in reward_registry().items():
        if name in judges or kind.scores != output:
            continue
        if kind.optional():
            unscored[name] = "optional, and evaluation.rewards of the suite does not name it"
            continue
        try:
            reward = load_reward(name)
            reward.check_prompts(suite.prompts.test)
        except (OSError, ValueError) as error:  # missing weights, or prompts it cannot judge
            unscored[name] = " ".join(str(error).split())
        else:
            judges[name] = reward
    return judges, unscored


def _find_reward(name: str, suite: Suite, origins: Origins, path: KeyPath) -> Reward:
    """A registered reward or a composite of the suite; raises ``UsageError``."""
    registered = reward_registry()
    _check_known("reward", name, [*registered, *suite.composites], origins, path)
    if name in suite.composites:
        path = ("composites", name)
        if name in registered:
            raise UsageError(f"{origins.of(path)}: there is a reward of the name {name!r}")
        for part in suite.composites[name].parts:
            _check_known("reward", part, registered, origins, path)
    try:
        return composites.load(name, suite.composites)
    except (OSError, ValueError) as error:
        raise UsageError(f"{origins.of(path)}: {error}") from error


def _check_prompts(rewards: dict[str, Reward], suite: Suite) -> None:
    for reward in rewards.values():
        for which in ("train", "validation", "test"):
            try:
                reward.check_prompts(getattr(suite.prompts, which))
            except RewardInputError as error:
                raise UsageError(f"prompts.{which}: {error}") from error


def _check_known(
    kind: str, name: str, known: Iterable[str], origins: Origins, path: KeyPath
) -> None:
    if name not in known:
        raise UsageError(
            f"{origins.of(path)}: unknown {kind} {name!r}; {did_you_mean(name, known)}"
        )
