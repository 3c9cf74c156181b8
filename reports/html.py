"""The report of a run: one HTML file that needs nothing else, neither network nor other files.

write_report(Path("runs/emoji-1"))
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from reports import (
    charts,
    densities,
    gallery,
    metric_views,
    protocol_views,
    statistics,
    style,
    views,
)
from results import (
    aggregates,
    analysis,
    costs,
    curves,
    density,
    exactness,
    matched,
    numbers,
    scores,
    store,
    verdict,
)
from results.intervals import CONFIDENCE, FEW_SEEDS
from results.store import ResultsError, Run

FILE_NAME = "report.html"


def write_report(run_folder: Path, out: Path | None = None) -> Path:
    """Write the report of a run folder to ``out``, by default ``report.html`` in it.

    Returns the path written. Unfinished runs have a report too, which says what is missing.
    Raises ResultsError for a folder that cannot be read or whose run has no cells, and OSError
    when the file cannot be written.
    """
    run = store.read_run(run_folder)
    if not run.cells:
        raise ResultsError(f"{run_folder}: the run has no cells, so there is nothing to report")
    path = out if out is not None else run_folder / FILE_NAME
    store.write_bytes(path, render(run).encode())
    return path


def render(run: Run) -> str:
    """The page as text."""
    templates = _templates()
    return templates.get_template("report.html.j2").render(**_context(run, templates))


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
        *(views.choices, views.phase_parts, protocol_views.stamped, protocol_views.eta),
    ):
        templates.filters[function.__name__] = function
    return templates


def _context(run: Run, templates: Environment) -> dict[str, Any]:
    cross = analysis.cross_rewards(run)
    throughput = analysis.throughput(run).to_dict("records")
    rows = aggregates.aggregate_table(run)
    return {
        "run": run,
        "record": run.record,
        "controls": scores.CONTROLS,
        "base": scores.BASE,
        "styles": style.styles(run),
        "methods": scores.methods(run),
        "encoders": scores.encoders(run),
        "headline": verdict.headline(run),
        "coverage_sentence": verdict.coverage_sentence(run),
        "tasks": [_task(run, task) for task in scores.tasks(run)],
        "coverage": views.coverage_rows(run),
        "aggregates": statistics.aggregate_rows(rows),
        "profile": statistics.profile_figure(run, rows).to_plotly_json() if rows else None,
        "profile_measures": statistics.measures(rows),
        "reward_levels": matched.REWARD_LEVELS,
        "diversity_levels": matched.DIVERSITY_LEVELS,
        "cross": views.cross_groups(cross),
        **metric_views.context(run, cross),
        **protocol_views.context(run),
        "cross_places": views.cross_decimals(cross),
        "rewards": scores.evaluated_rewards(run),
        "throughput": throughput,
        "machines": list(dict.fromkeys(row["machine"] for row in throughput)),
        "phases": analysis.phases(run),
        "gallery": gallery.build(run),
        "densities": densities.build(run) if exactness.has_densities(run) else {},
        "density_columns": exactness.COLUMNS,
        "density_cells": density.CELLS,
        "failed": [cell for cell in run.cells.values() if cell.status.state == "failed"],
        "environment": views.environment_rows(run),
        "commands": views.commands(run),
        "protocol": views.protocol(run),
        "costs": costs.measured(run),
        "phase_colours": style.PHASE_COLOURS,
        "confidence": round(100 * CONFIDENCE),
        "few_seeds": FEW_SEEDS,
        "nan": math.nan,
        "bad_images": verdict.bad_images,
        "css": _asset(templates, "report.css"),
        "script": _asset(templates, "report.js"),
        "plotly": Markup(get_plotlyjs()),  # noqa: S704 (the library's own file)
    }


def _task(run: Run, task: str) -> dict[str, Any]:
    rows = analysis.task_table(run, task)
    single = curves.learning_curves(run, task)
    single = single[(single["kind"] == "reward") & (single["name"] == task)]
    return {
        "name": task,
        "info": run.record.rewards.get(task),
        "claims": verdict.claims(run, task),
        "rows": rows,
        "bars": views.bars([row.gain.difference if row.gain else None for row in rows]),
        "comparisons": statistics.comparison_table(run, task),
        "matched": statistics.matched_groups(run, task),
        "corners": statistics.corners(run, task),
        "attainment": statistics.attainment_figure(run, task).to_plotly_json(),
        "places": views.score_decimals(rows),
        "best": views.best(rows),
        "scatter": charts.scatter(run, task).to_plotly_json(),
        "curve": charts.learning_curve(run, task).to_plotly_json(),
        "curve_rows": curves.mean_curves(single).to_dict("records"),
    }


def _asset(templates: Environment, name: str) -> Markup:
    """A file of the template folder as it is, without escaping: it is our own."""
    assert templates.loader is not None
    return Markup(templates.loader.get_source(templates, name)[0])  # noqa: S704 (as said)
