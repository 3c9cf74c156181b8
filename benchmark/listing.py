"""``benchmark list``: what there is to name on the command line."""

from __future__ import annotations

from collections.abc import Callable

from benchmark import calibration, calibrations, models, prompt_sets, suite, yaml_file
from benchmark.terminal import Table, print_table


def list_methods() -> Table:
    """Methods, what they need, and where they come from."""
    from methods import registry

    table = _table("method", "title", "needs", "arXiv")
    for name, method in registry().items():
        needs = [
            text
            for needed, text in (
                (method.needs_reward_gradient, "reward gradient"),
                (method.needs_stochastic_sampler, "eta > 0"),
                (method.extra, f"extra {method.extra}"),
            )
            if needed
        ]
        table.add_row(name, method.title, ", ".join(needs) or "-", method.paper or "-")
    return table


def list_rewards() -> Table:
    """Rewards, whether they have a gradient, unit, range, source, and what they need."""
    from rewards import registry

    table = _table("reward", "gradient", "unit", "range", "source", "needs")
    for name, reward in registry().items():
        low, high = ("" if bound is None else f"{bound:.4g}" for bound in reward.range)
        gradient = "yes" if reward.differentiable else "no"
        needs = reward.unavailable() or ("all here" if reward.optional() else "-")
        source, limits = reward.source, f"[{low}, {high}]"
        table.add_row(name, gradient, reward.unit, limits, source, needs.removeprefix("needs "))
    return table


def list_suites() -> Table:
    """Suites that come with the program."""
    table = _table("suite", "version", "description")
    for name in suite.names():
        values = yaml_file.read(suite.find(name))
        table.add_row(name, str(values.get("version", 1)), values.get("description", ""))
    return table


def list_models() -> Table:
    """Models that come with the program, and what else can be named."""
    table = _table("model", "weights")
    for name, folder in models.NAMED.items():
        missing = models.missing_files(folder)
        table.add_row(name, f"lacks {missing[0]}" if missing else str(folder))
    table.add_row(models.MIXTURE, str(models.MIXTURE_WEIGHTS))
    for name in models.RANDOM:
        table.add_row(name, "none: the architecture at its true size, with random weights")
    table.add_row(
        "FOLDER", "a folder of diffusers' StableDiffusionPipeline or StableDiffusionXLPipeline"
    )
    table.add_row("OWNER/NAME", "a Stable Diffusion 1 or SDXL model of the hub")
    return table


def list_metrics() -> Table:
    """Metrics of stored features, and detectors of stored pictures: direction, what they need,
    unit and source."""
    from benchmark import detectors
    from results import metrics

    table = _table("metric", "better", "against base", "from images", "unit", "source", "needs")
    for name, metric in metrics.registry().items():
        compared = "yes" if metric.needs_base else "no"
        least = f"{metric.minimum:,}"
        table.add_row(name, metric.direction, compared, least, metric.unit, metric.source, "-")
    for name, kind in detectors.registry().items():
        needs = kind.unavailable().removeprefix("needs ") or "all here"
        table.add_row(name, "lower", "no", "1", kind.unit, kind.source, needs)
    return table


def list_prompts() -> Table:
    """Prompt sets: what they hold, whose they are, and where those read by path are looked for."""
    table = _table("prompts", "version", "count", "licence", "lies in", "splits", "source")
    for name, found in prompt_sets.SETS.items():
        place = "the program" if found.shipped else str(prompt_sets.ELSEWHERE / found.file)
        splits = "hash" + (", released" if found.held_out_first else "")
        count = f"{found.count:,}" if found.count else "any"
        table.add_row(name, str(found.version), count, found.licence, place, splits, found.source)
    return table


def list_calibrations() -> Table:
    """Calibrations that come with the program, and where their values are from."""
    table = _table("calibration", "values", "model", "prompts", "description")
    for name in calibrations.names():
        found = calibration.read(calibrations.find(name))
        table.add_row(name, found.origin, found.model.name, found.prompts, found.description)
    return table


KINDS: dict[str, Callable[[], Table]] = {
    "methods": list_methods,
    "rewards": list_rewards,
    "suites": list_suites,
    "models": list_models,
    "metrics": list_metrics,
    "prompts": list_prompts,
    "calibrations": list_calibrations,
}


def show(kind: str) -> None:
    """Print the table of one kind."""
    print_table(KINDS[kind]())


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, no_wrap=index == 0, overflow="fold")
    return table
