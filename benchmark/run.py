"""``benchmark run``: plan the cells, run what is not done, report.

Imports torch with the methods and rewards that it looks up; the command line imports it last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark import (
    capacity,
    encoders,
    environment,
    measurement,
    run_folder,
    standing,
    summary,
    tracking,
    workers,
)
from benchmark.errors import CellsFailed, Interrupted, UsageError
from benchmark.fingerprint import CELL, fingerprint
from benchmark.jobs import CellJob
from benchmark.limits import Limits
from benchmark.matrix import Cell
from benchmark.model_settings import ModelSettings
from benchmark.models import find_model
from benchmark.progress import display
from benchmark.protocol import Protocol, model_identity
from benchmark.report import write_report
from benchmark.resolution import ResolvedSuite
from benchmark.sharing import SharedCells
from benchmark.standing import CellStanding
from results import metrics, store
from results.records import (
    AnchorRecord,
    CellConfig,
    MethodInfo,
    RewardInfo,
    RunRecord,
    StatusRecord,
)
from results.reproduction import config_key
from results.states import FAILURES, State


@dataclass(frozen=True)
class Executor:
    """What runs the cells."""

    on_ray: bool = False
    """A Ray cluster, in place of this machine's processes."""
    address: str | None = None
    """Of the cluster; see ``benchmark.ray_executor``."""


@dataclass(frozen=True)
class Plan:
    """What a run will do, decided before anything runs."""

    resolved: ResolvedSuite
    record: RunRecord
    cells: list[Cell]
    folder: Path
    weights: str
    """Digest of the model's."""
    retried: Sequence[State] = ()
    """States whose cells are run again."""
    executor: Executor = Executor()

    def standing(self) -> dict[str, CellStanding]:
        """How the cells stand now, by id; stale are those of another key than theirs would be."""
        keys = {cell.id: config_key(cell_config(self, cell)) for cell in self.cells}

        def is_stale(cell_id: str, status: StatusRecord) -> bool:
            return bool(status.key) and status.key != keys[cell_id]

        found = standing.read(self.folder, self.record, is_stale)
        refused = [cell for cell in self.cells if cell.not_applicable]
        return found | {
            cell.id: CellStanding("not_applicable", note=cell.not_applicable) for cell in refused
        }


def plan(
    resolved: ResolvedSuite,
    out: Path | None,
    command: str,
    retried: Sequence[State] = (),
    executor: Executor = Executor(),
) -> Plan:
    """Check all that can be checked before running; raises ``UsageError``."""
    suite = resolved.suite
    if not executor.on_ray and (shortage := capacity.shortage(suite.model)):
        raise UsageError(f"model.processes: {shortage}")
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
        sources=sources(resolved),
    )
    run_folder.check_usable(folder, record)
    weights = declared.conditions["model"]
    return Plan(resolved, record, cells, folder, weights, retried, executor)


def sources(resolved: ResolvedSuite) -> dict[str, list[str]]:
    """By method: the modules that its cells' numbers come from."""
    evaluation = {type(reward).__module__ for reward in resolved.judges.values()}
    known = encoders.registry()
    evaluation |= {known[name].load.__module__ for name in resolved.suite.evaluation.encoders}
    return {
        name: sorted({CELL, method.__module__, *evaluation})
        for name, method in resolved.methods.items()
    }


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


def execute(plan: Plan, trackers: Sequence[str] = ()) -> None:
    """Run all cells that are missing, write the report, and tell how it went; ``trackers`` are told
    what the cells write.

    Raises ``CellsFailed`` when some failed, ``Interrupted`` when stopped.
    """
    run_folder.begin(plan.folder, plan.record)
    for cell in plan.cells:
        if cell.not_applicable:
            _write_not_applicable(plan, cell)
    cells = plan.standing()
    run_folder.remove_checkpoints(plan.folder, [n for n, c in cells.items() if c.state == "done"])
    print(f"run {plan.folder}: {standing.sentence(cells, plan.retried)}", flush=True)
    missing = standing.to_run(cells, plan.retried)
    missing += [cell_id for cell_id, cell in cells.items() if cell.state == "running"]
    ended = _run_cells(plan, {name: cells[name] for name in missing}, trackers) if missing else {}
    unwritten = ""
    try:
        if missing or measurement.is_cut_short(plan.folder, [cell.id for cell in plan.cells]):
            measurement.measure_run(plan.folder, list(metrics.registry()))
        report = write_report(plan.folder)
    except (OSError, UsageError) as error:  # of the disk; the cells have ended all the same
        unwritten = f"no report: {error}"
    run = store.read_run(plan.folder, condense=True)
    summary.print_summary(run)
    summary.print_densities(run)
    if not unwritten:
        print(f"report {report}")
    # A status that the disk had no room for is known here alone.
    statuses = {name: ended.get(name, cell.status) for name, cell in run.cells.items()}
    failed = [name for name, status in statuses.items() if status.state in FAILURES]
    if failed:
        told = f"{len(failed)} of {len(run.cells)} cells failed: {', '.join(failed)}"
        raise CellsFailed("; ".join(part for part in (told, unwritten) if part))
    if unwritten:
        raise UsageError(unwritten)


def _run_cells(
    plan: Plan, missing: Mapping[str, CellStanding], trackers: Sequence[str]
) -> dict[str, StatusRecord]:
    """Run cells; the status of each that ended here."""
    suite = plan.resolved.suite
    cells = {cell.id: cell for cell in plan.cells}
    threads = capacity.threads(suite, len(plan.cells), plan.executor.on_ray)
    surroundings = environment.describe(plan.record.command, threads)

    def job_of(cell_id: str) -> CellJob:
        config = cell_config(plan, cells[cell_id])
        run_folder.set_aside_if_stale(plan.folder, cell_id, config_key(config))
        return CellJob(
            config=config,
            model=model_of(plan, cells[cell_id]),
            evaluation=suite.evaluation,
            environment=surroundings,
            folder=run_folder.clear_cell(plan.folder, cell_id),
            checkpoint_every=suite.checkpoint_every,
        )

    weights = {name: expected_work(plan, cells[name]) for name in missing}
    with (
        display(weights) as shown,
        tracking.tracked(trackers, plan.folder, shown.show) as show,
    ):
        seen = {cell_id: cell.status for cell_id, cell in missing.items()}
        work = SharedCells(plan.folder, seen, job_of, show)
        try:
            return _run_work(plan, work, threads, show) | work.not_begun
        except Interrupted as error:
            resume = f"the same command with --out {plan.folder} finishes the rest"
            raise Interrupted(f"{error}; {resume}") from None
        except OSError as error:
            raise UsageError(f"cannot write to {plan.folder}: {error.strerror}") from error


def _run_work(
    plan: Plan, work: SharedCells, threads: int, on_progress: workers.OnProgress
) -> dict[str, StatusRecord]:
    suite = plan.resolved.suite
    limits = Limits(suite.time_limit, suite.memory_limit)
    if not plan.executor.on_ray:
        count = suite.workers or capacity.workers(suite.model, len(work.waiting))
        return workers.run_all(work, count, threads, limits, on_progress)
    from benchmark import ray_executor

    cluster = ray_executor.Cluster(
        address=plan.executor.address,
        cpus=suite.cpus_per_cell or threads * suite.model.processes,
        gpus=0.0 if suite.model.device == "cpu" else suite.gpus_per_cell,
        processes=suite.model.processes,
        at_a_time=suite.workers,
    )
    sources = plan.record.sources
    return ray_executor.run_all(work, cluster, plan.folder, sources, threads, limits, on_progress)


def model_of(plan: Plan, cell: Cell) -> ModelSettings:
    """The settings of a cell's model: one process where nothing is trained together."""
    model = plan.resolved.suite.model
    if plan.resolved.methods[cell.method].trains:
        return model
    return model.model_copy(update={"processes": 1})


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
        model=model_of(plan, cell).model_dump(mode="json"),
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
        weights=plan.weights,
        source=fingerprint(plan.record.sources[cell.method]),
    )


def expected_work(plan: Plan, cell: Cell) -> float:
    """Weight of a cell in the time left, in sampled images: a training image is taken as four,
    divided among its processes, starting a process and loading the networks as 60."""
    suite = plan.resolved.suite
    evaluation, prompts = suite.evaluation, suite.prompts
    tested = len(prompts.test) * evaluation.images_per_prompt
    further = (len(suite.etas) - 1) * tested
    if plan.resolved.methods[cell.method].trains:
        each = tested
        if evaluation.checkpoint == "best-on-validation":
            each += len(prompts.validation) * evaluation.validation_images_per_prompt
        training = 4.0 * suite.budget.images / suite.model.processes
        return 60 + training + evaluation.times * each + further
    return 60.0 + (tested + further if cell.method == "base" else max(suite.budget.images, tested))


def _write_not_applicable(plan: Plan, cell: Cell) -> None:
    folder = store.cell_folder(plan.folder, cell.id)
    store.write_json(folder / "config.json", cell_config(plan, cell))
    status = StatusRecord(state="not_applicable", reason=cell.not_applicable)
    store.write_json(folder / "status.json", status)
