"""Tables of what lies behind a run's main ones: budgets, attainment, checkpoints, signs of hacking,
turns of the panel, bad images, samplers, and the exact metrics of a model in closed form."""

from __future__ import annotations

from reports.budget_views import budgets
from reports.table_formats import Table, Value
from results import distance, exactness, hacking, matched, picks, samplers, scores
from results.budgets import LEDGERS, to_target_table
from results.store import Run


def tables(run: Run) -> list[Table]:
    """All of them, those without rows included."""
    return [
        _equal_budgets(run),
        _targets(run),
        _attainment(run),
        _checkpoints(run),
        _samplers(run),
        _hacking(run),
        _turns(run),
        _by_distance(run),
        _bad_images(run),
        _exact_metrics(run),
    ]


def _equal_budgets(run: Run) -> Table:
    rows: list[list[Value]] = []
    for task in scores.tasks(run):
        for row in budgets(run, task).rows:
            line: list[Value] = [task, row.method]
            for ledger in LEDGERS:
                point = row.points.get(ledger)
                line += [row.rewards[ledger], point.comparison.difference if point else None]
                line += [point.comparison.p_adjusted if point else None]
                line += ["" if point is None else "yes" if point.reached else "no"]
            rows.append(line)
    columns = ["trained on", "method"]
    for name in LEDGERS.values():
        columns += [f"reward at equal {name}", f"against best-of-n at equal {name}"]
        columns += [f"p adjusted at equal {name}", f"spends as many {name}"]
    caption = "Held-out reward where as much was spent as by best-of-n."
    return Table("equal_budgets", caption, columns, rows)


def _targets(run: Run) -> Table:
    rows: list[list[Value]] = [
        [task, each.method, each.cost.replace("_", " "), each.share, seed, value]
        for task in scores.tasks(run)
        for each in to_target_table(run, task)
        for seed, value in each.values.items()
    ]
    columns = ["trained on", "method", "cost", "share of the gain", "seed", "spent"]
    caption = "Spent until a share of best-of-n's gain is reached; infinite for a miss."
    return Table("targets", caption, columns, rows)


def _attainment(run: Run) -> Table:
    rows: list[list[Value]] = [
        [task, encoder, method, float(corner[0]), float(corner[1])]
        for task in scores.tasks(run)
        for encoder in scores.encoders(run)
        for method, surface in matched.attained(run, task, encoder).items()
        for corner in surface
    ]
    columns = ["trained on", "encoder", "method", "reward", "diversity"]
    return Table("attainment", "Corners of what at least half of the seeds attain.", columns, rows)


def _checkpoints(run: Run) -> Table:
    rows: list[list[Value]] = [
        [
            *(each.cell.reward, each.cell.method, each.cell.seed, point.round, point.images),
            *(point.validation, point.test, "yes" if point.picked else "no"),
        ]
        for each in picks.picks(run)
        for point in each.checkpoints
    ]
    columns = ["trained on", "method", "seed", "round", "images", "validation", "test", "picked"]
    return Table("checkpoints", "Reward trained on, by checkpoint.", columns, rows)


def _samplers(run: Run) -> Table:
    encoders = scores.encoders(run)
    rows: list[list[Value]] = [
        [
            *(task, row.method, row.eta, row.reward),
            *(change if change.seeds else None for change in (row.to_first, row.gain)),
            *(row.diversity[encoder] for encoder in encoders),
        ]
        for task in scores.tasks(run)
        for row in samplers.sampler_table(run, task)
    ]
    columns = ["trained on", "method", "eta", "reward", "against the first eta"]
    columns += ["against base of the same eta", *(f"diversity {name}" for name in encoders)]
    return Table("samplers", "Picked checkpoints under every sampler.", columns, rows)


def _hacking(run: Run) -> Table:
    rows: list[list[Value]] = []
    for row in hacking.hacking_rows(run):
        for name, sign in row.signs.items():
            line: list[Value] = [row.task, row.method, name, sign.detector.suspicious]
            rows.append([*line, sign.change if sign.change.seeds else None, _word(sign.fires)])
    columns = ["trained on", "method", "detector", "suspicious", "change", "fires"]
    return Table("hacking", "Signs of reward hacking, change against base.", columns, rows)


def _turns(run: Run) -> Table:
    rows: list[list[Value]] = [
        [
            *(row.task, row.method, ", ".join(row.rewards), row.seeds, row.turned, row.from_start),
            *(there.mean if there.seeds else None for there in (row.distance, row.images)),
            *(level if level.seeds else None for level in (row.gain, row.panel, row.end)),
        ]
        for task in scores.tasks(run)
        for row in distance.turn_rows(run, task)
    ]
    columns = ["trained on", "method", "panel of", "seeds", "that turn", "from the start"]
    columns += ["distance there", "images there", "gain there", "panel there", "panel at the end"]
    caption = "Where the panel of held-out rewards turns, in standard deviations of base's images."
    return Table("turns", caption, columns, rows)


def _by_distance(run: Run) -> Table:
    names = distance.metrics(run)
    rows: list[list[Value]] = [
        [
            *(task, curves.method, seed, point.round, point.images, point.distance),
            _word(curves.turns.get(seed) == index),
            *(point.values[name] for name in names),
        ]
        for task in scores.tasks(run)
        for curves in distance.metric_curves(run, task)
        for seed, points in curves.seeds.items()
        for index, point in enumerate(points)
    ]
    columns = ["trained on", "method", "seed", "round", "images", "distance", "turn", *names]
    caption = "Every metric over the distance from base, the root of the path KL, every seed."
    return Table("by_distance", caption, columns, rows)


def _bad_images(run: Run) -> Table:
    every = hacking.bad_images(run)
    kinds = list(dict.fromkeys(kind for row in every for kind in row.counts))
    rows: list[list[Value]] = [
        [row.cell_id, row.round, *(row.counts.get(kind, 0) for kind in kinds), row.images]
        for row in every
    ]
    columns = ["cell", "round", *(kind.replace("_", " ") for kind in kinds), "images"]
    return Table("bad_images", "Bad images of every evaluation.", columns, rows)


def _exact_metrics(run: Run) -> Table:
    rows: list[list[Value]] = [
        [task, row.method, row.target, *(row.values.get(name) for name in exactness.COLUMNS)]
        for task in scores.tasks(run)
        for row in exactness.density_table(run, task)
    ]
    columns = ["trained on", "method", "target", *(n.replace("_", " ") for n in exactness.COLUMNS)]
    return Table("exact_metrics", "Exact metrics of the model in closed form.", columns, rows)


def _word(value: bool) -> str:
    return "yes" if value else "no"
