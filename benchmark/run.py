"""``benchmark run``: plan the cells, run what is not done, report.

Imports torch with the methods and rewards that it looks up; the command line imports it last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Table

from benchmark import encoders, environment, measurement, run_folder, workers
from benchmark.errors import CellsFailed, Interrupted, UsageError
from benchmark.jobs import CellJob
from benchmark.matrix import Cell
from benchmark.models import find_model
from benchmark.progress import display
from benchmark.protocol import Protocol, model_identity
from benchmark.report import write_report
from benchmark.resolution import ResolvedSuite
from benchmark.terminal import print_table
from results import exactness, metrics, store
from results.records import (
    AnchorRecord,
    CellConfig,
    MethodInfo,
    RewardInfo,
    RunRecord,
    StatusRecord,
)


@dataclass(frozen=True)
class Plan:
    """What a run will do, decided before anything runs."""

    resolved: ResolvedSuite
    record: RunRecord
    cells: list[Cell]
    folder: Path

    @property
    def unfinished(self) -> list[Cell]:
        """Cells that apply and are not done yet."""
        ids = run_folder.unfinished(self.folder, [cell.id for cell in self.cells])
        return [cell for cell in self.cells if cell.id in ids and not cell.not_applicable]


def plan(resolved: ResolvedSuite, out: Path | None, command: str) -> Plan:
    """Check all that can be checked before running; raises ``UsageError``."""
    suite = resolved.suite
    folder = out or run_folder.next_free(suite.name)
    cells = resolved.cells()
    declared = protocol_of(resolved)
    record = RunRecord(
        suite=suite.name,
        suite_config=suite.model_dump(mode="json"),
        protocol=declared.hash,
        protocol_content=declared.content,
        anchors={
            name: AnchorRecord(**anchor.model_dump()) for name, anchor in declared.anchors.items()
        },
        anchors_note=_anchors_note(declared),
        command=command,
        methods={
            name: MethodInfo(title=method.title, paper=method.paper, trains=method.trains)
            for name, method in resolved.methods.items()
        },
        rewards={
            name: RewardInfo(
                version=reward.version,
                unit=reward.unit,
                range=reward.range,
                differentiable=reward.differentiable,
                source=reward.source,
                needs_prompt=reward.needs_prompt,
            )
            for name, reward in (resolved.rewards | resolved.judges).items()
        },
        unscored=resolved.unscored,
        seeds=list(suite.seeds),
        cells=[cell.id for cell in cells],
    )
    run_folder.check_usable(folder, record)
    return Plan(resolved, record, cells, folder)


def _anchors_note(declared: Protocol) -> str:
    """How the anchors in use were measured, and why others that the suite declares are not used."""
    source = declared.suite.anchors.source if declared.anchors else ""
    return "; ".join(part for part in (source, declared.anchors_unused()) if part)


def protocol_of(resolved: ResolvedSuite) -> Protocol:
    """The suite's protocol; raises ``UsageError`` where weights of an encoder are missing."""
    suite = resolved.suite
    try:
        versions: dict[str, str] = {
            name: encoders.version(name) for name in suite.evaluation.encoders
        }
    except (OSError, ImportError) as error:
        raise UsageError(f"evaluation.encoders: weights are missing: {error}") from error
    model = model_identity(suite.model.name, find_model(suite.model.name))
    rewards = {name: reward.version for name, reward in resolved.judges.items()}
    return Protocol(suite, model, rewards, versions)


def execute(plan: Plan) -> None:
    """Run all cells that are not done, write the report, and tell how it went.

    Raises ``CellsFailed`` when some failed, ``Interrupted`` when stopped.
    """
    run_folder.create(plan.folder)
    store.write_json(plan.folder / "run.json", plan.record)
    for cell in plan.cells:
        if cell.not_applicable:
            _write_not_applicable(plan, cell)
    unfinished = plan.unfinished
    print(f"run {plan.folder}: {len(unfinished)} of {len(plan.cells)} cells to run", flush=True)
    if unfinished:
        _run_cells(plan, unfinished)
        measurement.measure_run(plan.folder, list(metrics.registry()))
    report = write_report(plan.folder)
    run = store.read_run(plan.folder)
    print_summary(run)
    print_densities(run)
    print(f"report {report}")
    failed = [cell_id for cell_id, cell in run.cells.items() if cell.status.state == "failed"]
    if failed:
        raise CellsFailed(f"{len(failed)} of {len(run.cells)} cells failed: {', '.join(failed)}")


def _run_cells(plan: Plan, cells: Sequence[Cell]) -> None:
    suite = plan.resolved.suite
    count = suite.workers or _default_workers(suite.model.device, len(cells))
    surroundings = environment.describe(plan.record.command, suite.threads)
    jobs = [
        CellJob(
            config=cell_config(plan, cell),
            model=suite.model,
            evaluation=suite.evaluation,
            environment=surroundings,
            folder=run_folder.clear_cell(plan.folder, cell.id),
        )
        for cell in cells
    ]
    with display({cell.id: expected_work(plan, cell) for cell in cells}) as shown:
        try:
            workers.run_all(jobs, count, suite.threads, shown.show)
        except Interrupted as error:
            resume = f"the same command with --out {plan.folder} finishes the rest"
            raise Interrupted(f"{error}; {resume}") from None


def _default_workers(device: str, cells: int) -> int:
    """One cell a core; one in all on a GPU, which cells would only take from each other."""
    if device != "cpu" and torch.cuda.is_available():
        return 1
    return min(environment.cores(), cells)


def cell_config(plan: Plan, cell: Cell) -> CellConfig:
    """Everything that decides the cell's numbers."""
    suite = plan.resolved.suite
    validated = suite.evaluation.checkpoint == "best-on-validation"
    return CellConfig(
        cell_id=cell.id,
        method=cell.method,
        reward=cell.reward,
        seed=cell.seed,
        suite=suite.name,
        model=suite.model.model_dump(mode="json"),
        method_config=suite.methods[cell.method],
        budget_images=suite.budget.images,
        train_prompts=list(suite.prompts.train),
        evaluation_prompts=list(suite.prompts.test),
        validation_prompts=list(suite.prompts.validation) if validated else [],
        images_per_prompt=suite.evaluation.images_per_prompt,
        validation_images_per_prompt=(
            suite.evaluation.validation_images_per_prompt if validated else 0
        ),
        evaluations=suite.evaluation.times,
        checkpoint=suite.evaluation.checkpoint,
        etas=list(suite.etas),
        rewards=list(plan.resolved.judges),
        composites={name: made.model_dump(mode="json") for name, made in suite.composites.items()},
        protocol=plan.record.protocol,
    )


def expected_work(plan: Plan, cell: Cell) -> float:
    """Weight of a cell in the time left, in sampled images: a training image is taken as four,
    starting a process and loading the networks as 60."""
    suite = plan.resolved.suite
    evaluation, prompts = suite.evaluation, suite.prompts
    tested = len(prompts.test) * evaluation.images_per_prompt
    further = (len(suite.etas) - 1) * tested
    if plan.resolved.methods[cell.method].trains:
        each = tested
        if evaluation.checkpoint == "best-on-validation":
            each += len(prompts.validation) * evaluation.validation_images_per_prompt
        return 60 + 4.0 * suite.budget.images + evaluation.times * each + further
    return 60.0 + (tested + further if cell.method == "base" else max(suite.budget.images, tested))


def _write_not_applicable(plan: Plan, cell: Cell) -> None:
    folder = store.cell_folder(plan.folder, cell.id)
    store.write_json(folder / "config.json", cell_config(plan, cell))
    status = StatusRecord(state="not_applicable", reason=cell.not_applicable)
    store.write_json(folder / "status.json", status)


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
    unfinished = {cell.id for cell in plan.unfinished}
    for cell in plan.cells:
        state = "run" if cell.id in unfinished else "done"
        if cell.not_applicable:
            state = f"not applicable: {cell.not_applicable}"
        print(f"  {cell.id}  {state}")
    print(f"{len(unfinished)} of {len(plan.cells)} cells to run")


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
