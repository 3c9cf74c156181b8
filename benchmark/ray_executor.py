"""Runs cells as tasks of a Ray cluster, which decides where and when, and runs those again whose
node was lost.

Results come through the folder of the run where a node sees it, else through Ray's object store.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmark import workers
from benchmark.errors import Interrupted, UsageError
from benchmark.jobs import CellJob
from benchmark.limits import GIB, Limits
from benchmark.models import find_model
from benchmark.workers import OnProgress, Work
from results.records import StatusRecord

try:
    import ray
    from ray.exceptions import NodeDiedError, RayError, RayTaskError, WorkerCrashedError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from benchmark import ray_cell
    from benchmark.ray_cell import Delivery, Files, Parcel
except ModuleNotFoundError as error:
    raise UsageError(
        f"--executor ray needs the package {error.name}: pip install -e '.[ray]'"
    ) from error

RETRIES = 3
"""Times that a cell is run again because its node was lost, or the post because its process was."""
STOP_SECONDS = workers.GRACE_SECONDS + 5.0
"""How long nodes may take to end their cells."""


@dataclass(frozen=True)
class Cluster:
    """What cells run on."""

    address: str | None
    """None for a cluster of this machine alone, started for the run, unless ``RAY_ADDRESS`` names
    another."""
    cpus: float
    """Of each cell."""
    gpus: float | None
    """Of each cell; None: one for each of its processes, if the cluster has any."""
    at_a_time: int | None
    """Most cells that Ray is given at a time; None: all."""
    processes: int = 1
    """Of each cell that trains."""


def run_all(
    work: Work,
    cluster: Cluster,
    folder: Path,
    modules: Mapping[str, list[str]],
    threads: int,
    limits: Limits,
    on_progress: OnProgress,
) -> dict[str, StatusRecord]:
    """Run all cells; the final status of those that ran here, see ``workers.run_all``.

    ``modules`` are by method, those whose hash is the source of its cells. Raises ``UsageError``
    where there is no such cluster, or none of its nodes has room for a cell; ``Interrupted`` on
    SIGINT and SIGTERM, once the cells have ended.
    """
    with _connection(cluster.address):
        gpus = cluster.gpus
        if gpus is None:
            gpus = float(cluster.processes) if ray.cluster_resources().get("GPU") else 0.0
        memory = None if limits.memory_gib is None else int(limits.memory_gib * GIB)
        _require_room({"CPU": cluster.cpus, "GPU": gpus, "memory": float(memory or 0)})
        task = ray.remote(ray_cell.run).options(
            num_cpus=cluster.cpus, num_gpus=gpus, memory=memory, max_retries=RETRIES
        )
        post = _post()
        with workers.sigterm_as_interrupt(), _token(folder) as token:

            def send(job: CellJob) -> Any:
                of_method = modules[job.config.method]
                job = _anywhere(job)
                parcel = Parcel(job, of_method, threads, gpus, limits, folder.resolve(), token)
                return task.remote(parcel, post)

            return _Tasks(work, send, post, on_progress).run(cluster.at_a_time)


def _anywhere(job: CellJob) -> CellJob:
    """The job with the model's path in full: nodes have other working folders."""
    found = find_model(job.model.name)
    if found is None or not Path(job.model.name).exists():
        return job
    return replace(job, model=job.model.model_copy(update={"name": str(found.resolve())}))


@dataclass
class _Tasks:
    """The tasks of a run."""

    work: Work
    send: Callable[[CellJob], Any]
    post: Any
    on_progress: OnProgress
    flying: dict[Any, CellJob] = field(default_factory=dict)
    statuses: dict[str, StatusRecord] = field(default_factory=dict)

    def run(self, at_a_time: int | None) -> dict[str, StatusRecord]:
        total = len(self.work.waiting)
        try:
            while self.work.waiting or self.flying:
                while at_a_time is None or len(self.flying) < at_a_time:
                    job = self.work.take()
                    if job is None:
                        break
                    self.flying[self.send(job)] = job
                ended = self._wait()
                self._pass_on()
                self._give_up(self.work.beat())
                for task in ended:
                    if task in self.flying:
                        self._settle(task, self.flying.pop(task))
        except KeyboardInterrupt:
            self._stop()
            ended_text = f"interrupted with {len(self.statuses)} of {total} cells ended"
            raise Interrupted(ended_text) from None
        except RayError as error:
            self._stop()
            raise Interrupted(f"Ray's cluster does not work any more: {_reason(error)}") from error
        except BaseException:
            self._stop()
            raise
        return self.statuses

    def _wait(self) -> list[Any]:
        """Tasks that have ended."""
        if not self.flying:
            time.sleep(workers.TICK_SECONDS)  # others work on all that is left
            return []
        ended, _ = ray.wait(list(self.flying), timeout=workers.TICK_SECONDS)
        return list(ended)

    def _pass_on(self) -> None:
        running = {job.config.cell_id for job in self.flying.values()}
        for cell_id, progress in ray.get(self.post.told.remote()):
            if cell_id in running:
                self.on_progress(cell_id, progress)

    def _give_up(self, lost: Sequence[str]) -> None:
        """End the cells that another run has taken over, whose folders are its own now."""
        for task, job in list(self.flying.items()):
            if job.config.cell_id in lost:
                ray.cancel(task, force=True)
                del self.flying[task]

    def _settle(self, task: Any, job: CellJob) -> None:
        """Take what a task has left."""
        cell_id = job.config.cell_id
        delivery = self._delivery(task, job)
        status = _stored(job, delivery.status, delivery.files or {})
        self.statuses[cell_id] = status
        ray.get(self.post.forget.remote(cell_id))  # or Ray may end meanwhile, and complain
        self.work.ended(cell_id)
        self.on_progress(cell_id, workers.final_progress(status))

    def _delivery(self, task: Any, job: CellJob) -> Delivery:
        try:
            delivery: Delivery = ray.get(task)
        except RayError as error:
            status = StatusRecord(state="failed", reason=_reason(error), **job.identity)
            return Delivery(status, self._copy_of(job))
        return delivery

    def _copy_of(self, job: CellJob) -> Files:
        with suppress(RayError):
            files: Files = ray.get(self.post.copy_of.remote(job.config.cell_id))
            return files
        return {}

    def _stop(self) -> None:
        """End all tasks and mark the cells that had begun."""
        with suppress(KeyboardInterrupt, RayError):
            for task in self.flying:
                ray.cancel(task)
            ray.wait(list(self.flying), num_returns=len(self.flying), timeout=STOP_SECONDS)
        for task, job in self.flying.items():
            with suppress(RayError):
                ray.cancel(task, force=True)
            files = self._copy_of(job)
            if files or (job.folder / "config.json").exists():
                interrupted = StatusRecord(
                    state="interrupted", reason="interrupted", **job.identity
                )
                _stored(job, interrupted, files)
            self.work.ended(job.config.cell_id)


def _stored(job: CellJob, status: StatusRecord, files: Files) -> StatusRecord:
    """Write what a node has sent of a cell; its status is the one that the cell itself has left, or
    else ``status``."""
    try:
        ray_cell.write(job.folder, files)
    except OSError as error:
        reason = f"its results could not be written: {error.strerror or error}"
        status = StatusRecord(state="failed", reason=reason, **job.identity)
    else:
        if left := workers.left(job):
            return left
    workers.record(job, status)
    return status


def _reason(error: RayError) -> str:
    """Why a task has left nothing, in one line."""
    if isinstance(error, NodeDiedError | WorkerCrashedError):
        return f"its node, or Ray's process there, was lost {RETRIES + 1} times"
    cause = error.cause if isinstance(error, RayTaskError) else error
    text = " ".join(str(cause).split())
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__


def _post() -> Any:
    """The actor, on this node of the cluster, so that no loss of another takes it away."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    post = ray.remote(ray_cell.Post).options(
        num_cpus=0, scheduling_strategy=here, max_restarts=RETRIES, max_task_retries=RETRIES
    )
    return post.remote()


def _require_room(needed: Mapping[str, float]) -> None:
    """Raise ``UsageError`` if no node could ever run a cell: Ray would wait for one for ever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(all(node.get(name, 0) >= n for name, n in needed.items()) for node in nodes):
        return
    asked = ", ".join(f"{name} {n:g}" for name, n in needed.items() if n)
    most = ", ".join(f"{name} {max(n.get(name, 0) for n in nodes):g}" for name in needed)
    raise UsageError(
        f"--executor ray: no node of the cluster has room for a cell ({asked}; the most of each "
        f"on a node: {most}); see --cpus-per-cell, --gpus-per-cell, --memory-limit and "
        f"model.processes"
    )


@contextmanager
def _connection(address: str | None) -> Iterator[None]:
    """A cluster: that at the address, else one of this machine alone."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere unasked
    # By itself, Ray would join whatever cluster was last started on this machine.
    named = address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        ray.init(named, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    except Exception as error:  # of many kinds, plain ones among them
        where = "" if address is None else f" --address {address}"
        raise UsageError(f"--executor ray{where}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _token(folder: Path) -> Iterator[str]:
    """Name of a file in the folder that is there for now."""
    path = folder / f".shared-{secrets.token_hex(8)}.part"
    path.touch()
    try:
        yield path.name
    finally:
        path.unlink(missing_ok=True)
