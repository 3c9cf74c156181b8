"""The tables of a run for other programs and for papers: CSV, Markdown and LaTeX.

write_tables(read_run(Path("runs/emoji-1")), Path("tables"))
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reports import detail_tables, setup_tables
from reports.table_formats import Table, Value
from results import (
    aggregates,
    analysis,
    budgets,
    comparisons,
    costs,
    curves,
    matched,
    measuring,
    scores,
    store,
)
from results.intervals import Interval
from results.paired import Comparison
from results.store import Run


def write_tables(run: Run, folder: Path) -> list[Path]:
    """Write every table that has rows as ``.csv``, ``.md`` and ``.tex``; returns their paths.

    Raises OSError where the disk does.
    """
    paths = []
    for table in tables(run):
        for suffix, text in (
            ("csv", table.csv()),
            ("md", table.markdown()),
            ("tex", table.latex()),
        ):
            path = folder / f"{table.name}.{suffix}"
            store.write_bytes(path, text.encode())
            paths.append(path)
    return paths


def tables(run: Run) -> list[Table]:
    """All tables of a run that have rows; that of its cells always has."""
    every = [
        _coverage(run),
        _scores(run),
        _seeds(run),
        _comparisons(run),
        _matched(run),
        _aggregates(run),
        _cross(run),
        _curves(run),
        _metrics(run),
        _cost(run),
        *detail_tables.tables(run),
        *setup_tables.tables(run),
    ]
    protocol = run.record.protocol
    return [replace(table, protocol=protocol) for table in every if table.rows]


def _coverage(run: Run) -> Table:
    rows: list[list[Value]] = [
        [row["cell_id"], row["method"], row["task"], row["seed"], row["state"], row["reason"]]
        for row in analysis.coverage(run).to_dict("records")
    ]
    columns = ["cell", "method", "trained on", "seed", "state", "reason"]
    return Table("coverage", "The cells of the run.", columns, rows)


def _scores(run: Run) -> Table:
    encoders = scores.encoders(run)
    rows: list[list[Value]] = []
    for task in scores.tasks(run):
        for row in analysis.task_table(run, task):
            changes = [row.diversity_change.get(encoder) for encoder in encoders]
            line: list[Value] = [task, row.method, row.done, row.reward, row.tier]
            line += [_difference(row.gain), _p(row.gain)]
            for encoder, change in zip(encoders, changes, strict=True):
                line += [row.diversity[encoder], _difference(change)]
            rows.append(line)
    columns = ["trained on", "method", "seeds", "reward", "tier", "change", "p adjusted"]
    for encoder in encoders:
        columns += [f"diversity {encoder}", f"diversity {encoder} change"]
    caption = "Held-out reward and diversity of the picked checkpoint, change against base."
    return Table("scores", caption, columns, rows)


def _seeds(run: Run) -> Table:
    encoders = scores.encoders(run)
    rows: list[list[Value]] = [
        [task, row.method, seed, value, *(row.diversity[e].values.get(seed) for e in encoders)]
        for task in scores.tasks(run)
        for row in analysis.task_table(run, task)
        for seed, value in row.reward.values.items()
    ]
    columns = ["trained on", "method", "seed", "reward", *(f"diversity {e}" for e in encoders)]
    return Table("seeds", "Held-out reward and diversity of every seed.", columns, rows)


def _comparisons(run: Run) -> Table:
    rows: list[list[Value]] = []
    for task in scores.tasks(run):
        for family in comparisons.families(run, task):
            measure = "reward" if family.kind == "reward" else f"diversity {family.name}"
            rows += [_compared(task, measure, each) for each in family.comparisons]
        for ledger, name in budgets.LEDGERS.items():
            for point in budgets.equal_budget_family(run, task, ledger):
                rows.append(_compared(task, f"reward at equal {name}", point.comparison))
    columns = [
        *("trained on", "measure", "method", "against", "seeds", "difference"),
        *("better on", "p", "p adjusted"),
    ]
    caption = "Methods compared, paired by seed and prompt; p adjusted by Holm in each family."
    return Table("comparisons", caption, columns, rows)


def _compared(task: str, measure: str, each: Comparison) -> list[Value]:
    line: list[Value] = [task, measure, each.method, each.reference, each.difference.seeds]
    return [*line, each.difference, each.improvement, each.p, each.p_adjusted]


def _matched(run: Run) -> Table:
    rows: list[list[Value]] = [
        [
            *(task, row.encoder, row.method, row.hypervolume),
            *(row.diversity_at[share].value for share in matched.REWARD_LEVELS),
            *(row.reward_at[share].value for share in matched.DIVERSITY_LEVELS),
        ]
        for task in scores.tasks(run)
        for row in matched.trade_off_table(run, task)
    ]
    columns = ["trained on", "encoder", "method", "hypervolume"]
    columns += [f"diversity at {100 * s:.0f} % of the gain" for s in matched.REWARD_LEVELS]
    columns += [f"reward at {100 * s:.0f} % of the diversity" for s in matched.DIVERSITY_LEVELS]
    caption = "Diversity at shares of best-of-n's gain, reward at shares of base's diversity."
    return Table("matched", caption, columns, rows)


def _aggregates(run: Run) -> Table:
    rows: list[list[Value]] = [
        [row.method, row.name or "reward", len(row.blocks.seeds), row.value]
        for row in aggregates.aggregate_table(run)
    ]
    caption = "Interquartile mean over seeds and training rewards; reward: 0 base, 1 best-of-n."
    return Table("aggregates", caption, ["method", "measure", "seeds", "value"], rows)


def _cross(run: Run) -> Table:
    names = scores.evaluated_rewards(run)
    rows: list[list[Value]] = [
        [row.task, row.method, *(row.scores.get(name) for name in names)]
        for row in analysis.cross_rewards(run)
    ]
    caption = "Every method scored by every reward."
    return Table("cross_rewards", caption, ["trained on", "method", *names], rows)


def _curves(run: Run) -> Table:
    drawn = costs.measured(run)
    rows: list[list[Value]] = []
    for task in scores.tasks(run):
        single = curves.learning_curves(run, task, [("reward", task)])
        for row in single.to_dict("records"):
            place: list[Value] = [task, row["method"], row["seed"], row["round"]]
            rows.append([*place, *(row[cost] for cost in drawn), row["value"]])
    columns = ["trained on", "method", "seed", "round", *drawn.values(), "reward"]
    return Table("learning_curves", "Held-out reward in training, every seed.", columns, rows)


def _metrics(run: Run) -> Table:
    rows: list[list[Value]] = [
        [record.metric, row.encoder, row.task, row.method, row.level, row.change, row.refused]
        for record in measuring.measured_metrics(run)
        for row in measuring.measured_rows(run, record.metric)
    ]
    columns = ["metric", "encoder", "trained on", "method", "value", "change", "refused"]
    return Table("metrics", "Metrics of the picked checkpoint's features.", columns, rows)


def _cost(run: Run) -> Table:
    frame = analysis.throughput(run)
    columns = [str(name).replace("_", " ") for name in frame.columns]
    return Table("cost", "What a cell cost, mean over seeds.", columns, frame.values.tolist())


def _difference(comparison: Comparison | None) -> Interval | None:
    return comparison.difference if comparison else None


def _p(comparison: Comparison | None) -> float | None:
    return comparison.p_adjusted if comparison else None
