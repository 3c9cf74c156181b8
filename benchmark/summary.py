"""What a run tells: its plan before, its results after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmark import standing
from benchmark.terminal import Table, print_table
from results import exactness, store
from results.states import words

if TYPE_CHECKING:
    from benchmark.run import Plan


def print_plan(plan: Plan) -> None:
    """The cells that would run, those that are done, and those that cannot be."""
    suite = plan.resolved.suite
    model, evaluation = suite.model, suite.evaluation
    print(f"suite {suite.name} version {suite.version}, protocol {plan.record.protocol}")
    print(
        f"model {model.name}, {model.sampling_steps} steps, guidance {model.guidance_scale:g}, "
        f"eta {model.eta:g}, training {model.trainable}"
    )
    print(
        f"budget {suite.budget.images} images a cell, {evaluation.times} evaluations of "
        f"{len(suite.prompts.test)} test prompts x {evaluation.images_per_prompt} images, "
        f"eta {', then '.join(f'{eta:g}' for eta in suite.etas)}"
    )
    if evaluation.checkpoint == "best-on-validation":
        print(
            f"checkpoint best on validation, {len(suite.prompts.validation)} prompts x "
            f"{evaluation.validation_images_per_prompt} images"
        )
    else:
        print("checkpoint last")
    print(f"folder {plan.folder}")
    cells = plan.standing()
    running = set(standing.to_run(cells, plan.retried))
    for cell in plan.cells:
        state = words(cells[cell.id].state)
        if cell.not_applicable:
            state = f"not applicable: {cell.not_applicable}"
        elif cell.id in running:
            state = "run" if state == "pending" else f"run ({state})"
        print(f"  {cell.id}  {state}")
    print(standing.sentence(cells, plan.retried))


def print_summary(run: store.Run) -> None:
    """Test mean of every reward at the picked checkpoint, averaged over seeds, one row a (method,
    reward)."""
    rewards = list(run.record.rewards)
    title = "rewards on the test prompts, picked checkpoints, mean over seeds"
    table = Table(title=f"{title}, protocol {run.record.protocol}")
    for heading in ("method", "trained on", "done", *rewards):
        table.add_column(heading)
    rows: dict[tuple[str, str], list[store.Cell]] = {}
    for cell in run.cells.values():
        rows.setdefault((cell.method, cell.reward), []).append(cell)
    for (method, reward), cells in rows.items():
        done = [cell for cell in cells if cell.status.state == "done" and cell.evaluations]
        values = [_mean_over_seeds(done, name) for name in rewards]
        state = f"{len(done)}/{len(cells)}"
        if all(cell.status.state == "not_applicable" for cell in cells):
            state = "n/a"
        table.add_row(method, reward, state, *values)
    print_table(table)


def print_densities(run: store.Run) -> None:
    """Distance to each method's target, mean over seeds, where the model is in closed form."""
    title = "distance to the declared target, mean over seeds"
    table = Table(title=f"{title}, protocol {run.record.protocol}")
    headings = exactness.COLUMNS
    for heading in ("trained on", "method", "target", *headings.values()):
        table.add_column(heading)
    for task in run.record.rewards:
        for row in exactness.density_table(run, task):
            cells = [row.values.get(name) for name in headings]
            shown = [f"{cell.mean:.3f}" if cell else "-" for cell in cells]
            table.add_row(task, row.method, row.target, *shown)
    if table.rows:
        print_table(table)


def _mean_over_seeds(done: Sequence[store.Cell], reward: str) -> str:
    means = []
    for cell in done:
        scored = cell.picked.rewards.get(reward, [])
        if values := [value for prompt in scored for value in prompt]:
            means.append(sum(values) / len(values))
    return f"{sum(means) / len(means):.4g}" if means else "-"
