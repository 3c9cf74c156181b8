"""The report of a run: one HTML file that needs nothing else, neither network nor other files.

write_report(Path("runs/emoji-1"))
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from reports import (
    budget_views,
    charts,
    densities,
    gallery,
    metric_views,
    panel_views,
    protocol_views,
    statistics,
    style,
    views,
)
from reports.shown import ALL, Shown, first_limits, shown, smaller, spread
from results import (
    aggregates,
    analysis,
    budgets,
    costs,
    curves,
    density,
    differences,
    exactness,
    matched,
    merged,
    numbers,
    scores,
    store,
    verdict,
)
from results.intervals import CONFIDENCE, FEW_SEEDS
from results.states import FAILURES
from results.store import ResultsError, Run

FILE_NAME = "report.html"

PAGE_BYTES = 8_000_000
"""Most bytes of a page: the gallery shrinks first, then less is shown (``reports.shown``)."""

PICTURE_BYTES = 800_000
"""Left for pictures on a page that does not show all."""


def write_report(run_folder: Path, out: Path | None = None) -> Path:
    """Write the report of a run folder to ``out``, by default ``report.html`` in it.

    Returns the path written. Unfinished runs have a report too, which says what is missing.
    Raises ResultsError for a folder that cannot be read or whose run has no cells, and OSError
    when the file cannot be written.
    """
    run = store.read_run(run_folder, condense=True)
    if not run.cells:
        raise ResultsError(f"{run_folder}: the run has no cells, so there is nothing to report")
    path = out if out is not None else run_folder / FILE_NAME
    store.write_bytes(path, render(run).encode())
    return path


def write_comparison(first: Path, second: Path, out: Path) -> Path:
    """Write the report of two run folders together; raises as ``write_report`` does, and
    ResultsError for two times the same folder."""
    pair = merged.merge(*(store.read_run(folder, condense=True) for folder in (first, second)))
    store.write_bytes(out, render_comparison(pair).encode())
    return out


def render(run: Run) -> str:
    """The page as text."""
    heading = {"title": run.record.suite, "command": run.record.command, "comparison": None}
    return _page([("", run)], heading)


def render_comparison(pair: merged.Merged) -> str:
    """The page of two runs: one set of sections where their numbers compare, else two."""
    names = [f"{source.label}: {source.run.folder.resolve().name}" for source in pair.sources]
    cells = {
        cell_id: replace(cell, cell_id=cell_id)
        for source in pair.sources
        for name, cell in source.run.cells.items()
        for cell_id in [f"{source.label}/{name}"]
    }
    comparison = {
        "sources": pair.sources,
        "notes": pair.notes,
        "settings": differences.settings(cells.values()),
        "environments": [e for e in differences.environments(cells.values()) if e.differs],
    }
    heading = {"title": " and ".join(names), "command": "", "comparison": comparison}
    return _page(pair.parts, heading)


def _page(runs: Sequence[tuple[str, Run]], heading: dict[str, Any]) -> str:
    """The page of labelled runs; only the sections of a run have its numbers in them."""
    templates = _templates()
    shell: dict[str, Any] = {
        **heading,
        "css": _asset(templates, "report.css"),
        "script": _asset(templates, "report.js"),
        "plotly": Markup(get_plotlyjs()),  # noqa: S704 (the library's own file)
    }
    page = templates.get_template("report.html.j2")
    every = [run for _, run in runs]
    limits = first_limits(every)
    while True:
        contexts = [_context(run, label, shown(run, limits)) for label, run in runs]
        drafts = [_part(templates, context) for context in contexts]
        used = len(page.render(**shell, most_cells=limits.cells, parts=drafts).encode())
        room = PAGE_BYTES - (0 if limits == ALL else PICTURE_BYTES)
        sections = sum(len(draft["content"].encode()) for draft in drafts)
        share = (room - (used - sections)) / max(1, sections)
        less = smaller(limits, every, share) if used > room else None
        if less is None:
            break
        limits = less
    shell["most_cells"] = limits.cells
    left = min(gallery.EMBEDDED_BYTES, max(0, PAGE_BYTES - used))
    while True:
        for context in contexts:
            methods = context["shown"].methods
            context["gallery"] = gallery.build(context["run"], left // len(contexts), methods)
        text = page.render(**shell, parts=[_part(templates, context) for context in contexts])
        over = len(text.encode()) - PAGE_BYTES
        if over <= 0 or left == 0:
            return text
        # Prompts beside the pictures are of any length, and not reckoned as theirs.
        left = max(0, min(left - over, left // 2))


def _part(templates: Environment, context: dict[str, Any]) -> dict[str, Any]:
    """The sections of one run, their ids set apart by its label, and what the page says of them."""
    prefix = f"{context['label']}-".lower() if context["label"] else ""
    content = templates.get_template("part.html.j2").render(**context)
    sections = re.findall(r'<section id="([^"]+)" data-name="([^"]+)"', content)
    names = {f"{prefix}{name}": Markup(title) for name, title in sections}  # noqa: S704 (our own)
    shown = ("label", "run", "record", "headline", "coverage_sentence")
    return {
        **{name: context[name] for name in shown},
        "prefix": prefix,
        "sections": names,
        "content": Markup(views.apart(content, prefix)),  # noqa: S704 (rendered with escaping)
    }


def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # A NaN would make a script that no browser can parse; better no page than a broken one.
    templates.policies["json.dumps_kwargs"] = {"sort_keys": False, "allow_nan": False}
    for function in (
        *(numbers.number, numbers.mean, numbers.bounds, numbers.difference, numbers.duration),
        *(numbers.data_size, numbers.count, numbers.column_decimals, numbers.or_unmeasured),
        *(numbers.p_value, numbers.share),
        budget_views.cost_to,
        spread,
        *(views.choices, views.phase_parts, protocol_views.stamped, protocol_views.eta),
    ):
        templates.filters[function.__name__] = function
    return templates


def _context(run: Run, label: str, shown: Shown) -> dict[str, Any]:
    cross = [
        row
        for row in analysis.cross_rewards(run, shown.tasks, shown.rewards)
        if row.method in shown.methods
    ]
    costly = analysis.throughput(run).to_dict("records")
    groups = [scores.NO_REWARD, *shown.tasks]
    costly = [row for row in costly if row["method"] in shown.methods and row["task"] in groups]
    rows = [row for row in aggregates.aggregate_table(run) if row.method in shown.methods]
    failed = [cell for cell in run.cells.values() if cell.status.state in FAILURES]
    return {
        "run": run,
        "shown": shown,
        "label": label,
        "record": run.record,
        "controls": scores.CONTROLS,
        "base": scores.BASE,
        "styles": style.styles(run),
        "methods": scores.methods(run),
        "encoders": scores.encoders(run),
        "headline": verdict.headline(run),
        "coverage_sentence": verdict.coverage_sentence(run),
        "tasks": [_task(run, task, shown) for task in shown.tasks],
        "coverage": views.coverage_rows(run, shown),
        "aggregates": statistics.aggregate_rows(rows),
        "profile": statistics.profile_figure(run, rows).to_plotly_json() if rows else None,
        "profile_measures": statistics.measures(rows),
        "reward_levels": matched.REWARD_LEVELS,
        "diversity_levels": matched.DIVERSITY_LEVELS,
        "cross": views.cross_groups(cross),
        **metric_views.context(run, cross, shown),
        **panel_views.context(run, shown),
        **protocol_views.context(run, shown),
        "cross_places": views.cross_decimals(cross),
        "rewards": shown.rewards,
        "throughput": costly,
        "phases": analysis.phases(run),
        "gallery": gallery.EMPTY,
        "densities": densities.build(run, shown) if exactness.has_densities(run) else {},
        "density_columns": exactness.COLUMNS,
        "density_cells": density.CELLS,
        "failures": FAILURES,
        "failed": failed,
        "unfolded": {cell.cell_id for cell in failed[: shown.cells]},
        "environment": differences.environments(run.cells.values()),
        "settings": differences.settings(run.cells.values()),
        "cells": views.cell_rows(run, shown.cells),
        "protocol": views.protocol(run),
        "costs": costs.axes(run),
        "ledgers": budgets.LEDGERS,
        "target_costs": budgets.TARGET_COSTS,
        "phase_colours": style.PHASE_COLOURS,
        "confidence": round(100 * CONFIDENCE),
        "few_seeds": FEW_SEEDS,
        "nan": math.nan,
        "bad_images": verdict.bad_images,
    }


def _task(run: Run, task: str, shown: Shown) -> dict[str, Any]:
    every = analysis.task_table(run, task)
    rows = [row for row in every if row.method in shown.methods]
    single = curves.learning_curves(run, task, [("reward", task)])
    single = single[single["method"].isin(shown.methods)]
    return {
        "name": task,
        "info": run.record.rewards.get(task),
        "claims": verdict.claims(run, task),
        "rows": rows,
        "bars": views.bars([row.gain.difference if row.gain else None for row in rows]),
        "comparisons": statistics.comparison_table(run, task, shown),
        "budgets": budget_views.budgets(run, task, shown),
        "matched": statistics.matched_groups(run, task, shown),
        "corners": statistics.corners(run, task, shown),
        "attainment": statistics.attainment_figure(run, task, shown).to_plotly_json(),
        "places": views.score_decimals(rows),
        "best": views.best(every),
        "scatter": charts.scatter(run, task, shown).to_plotly_json(),
        "curve": charts.learning_curve(run, task, shown).to_plotly_json(),
        "curve_rows": curves.mean_curves(single).to_dict("records"),
    }


def _asset(templates: Environment, name: str) -> Markup:
    """A file of the template folder as it is, without escaping: it is our own."""
    assert templates.loader is not None
    return Markup(templates.loader.get_source(templates, name)[0])  # noqa: S704 (as said)
