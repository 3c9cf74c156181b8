"""``benchmark throughput``: how fast methods train, measured in turns in one process."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmark import capacity, environment, run_folder
from benchmark.errors import CellsFailed, UsageError
from benchmark.measured import MeasuredMethod
from benchmark.policies import build_policy
from benchmark.resolution import ResolvedSuite
from benchmark.run import protocol_of
from benchmark.terminal import Table, print_table
from diffusion.ledger import Ledger
from diffusion.pipelines import ModelError
from results import costs, numbers, store
from results.throughput import (
    FILE_NAME,
    Machine,
    ThroughputRecord,
    ratio,
)


def measure(
    resolved: ResolvedSuite,
    chosen: Sequence[str],
    rounds: int,
    warm_up_cap: int,
    out: Path | None,
    command: str,
) -> None:
    """Measure ``chosen`` on the suite's first reward, write the record and print it.

    Raises ``UsageError`` where nothing can be measured, ``CellsFailed`` when methods failed.
    """
    suite, reward = resolved.suite, resolved.suite.rewards[0]
    folder = out or run_folder.next_free("throughput")
    _check_empty(folder)
    threads = capacity.threads(suite, cells=1)
    torch.set_num_threads(threads)
    record = ThroughputRecord(
        suite=suite.name,
        reward=reward,
        seed=suite.seeds[0],
        rounds=rounds,
        warm_up_cap=warm_up_cap,
        environment=environment.describe(command, threads),
        protocol=protocol_of(resolved).hash,
    )
    subjects = _subjects(resolved, chosen, record, 1 + warm_up_cap + rounds)
    _make(folder)
    failed: list[str] = []
    _warm_up(subjects, warm_up_cap, record, failed)
    _take_turns(subjects, rounds, record, failed)
    machine = _machine(record, subjects)
    record.methods = [subject.result(machine) for subject in subjects]
    record.ratios = [ratio(a, b) for a, b in itertools.combinations(record.methods, 2)]
    store.write_json(folder / FILE_NAME, record)
    show(record)
    print(f"written {folder / FILE_NAME}")
    if failed:
        raise CellsFailed(f"{len(failed)} of {len(chosen)} methods failed: {'; '.join(failed)}")


def _check_empty(folder: Path) -> None:
    """Pass a new or empty folder, never somebody else's."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UsageError(f"--out {folder}: not an empty folder; name another")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}") from error


def _subjects(
    resolved: ResolvedSuite, chosen: Sequence[str], record: ThroughputRecord, steps: int
) -> list[MeasuredMethod]:
    """Those of ``chosen`` that can run, on one policy; the others are named in the record."""
    suite = resolved.suite
    if suite.model.processes > 1:
        raise UsageError("model.processes: throughput measures one process; take 1")
    obstacles = {cell.method: cell.not_applicable for cell in resolved.cells()}
    try:
        policy = build_policy(suite.model, suite.seeds[0], Ledger(synchronise=True))
    except (ModelError, ValueError) as error:
        raise UsageError(str(error)) from error
    subjects = []
    for name in chosen:
        try:
            if obstacles[name]:
                raise ValueError(obstacles[name])
            reward = resolved.rewards[record.reward]
            config = resolved.configs[name]
            subjects.append(MeasuredMethod(name, config, policy, reward, suite, steps))
        except ValueError as error:
            record.not_measured[name] = str(error)
            print(f"not measured: {error}", flush=True)
    if not subjects:
        raise UsageError(
            f"no method can be measured on {record.reward}: "
            f"{'; '.join(record.not_measured.values())}"
        )
    return subjects


def _warm_up(
    subjects: list[MeasuredMethod], cap: int, record: ThroughputRecord, failed: list[str]
) -> None:
    for subject in list(subjects):
        try:
            subject.prepare(cap)
        except Exception as error:  # a method's own fault must not take the others' times along
            _fail(subject, subjects, error, record, failed)
            continue
        state = "settled" if subject.warm_up.settled else "not settled"
        print(
            f"{subject.name}: first round {subject.first:.3g} s, {state} after "
            f"{len(subject.warm_up.seconds)} more",
            flush=True,
        )


def _take_turns(
    subjects: list[MeasuredMethod], rounds: int, record: ThroughputRecord, failed: list[str]
) -> None:
    for _ in range(rounds):
        for subject in list(subjects):
            try:
                subject.measure()
            except Exception as error:
                _fail(subject, subjects, error, record, failed)


def _fail(
    subject: MeasuredMethod,
    subjects: list[MeasuredMethod],
    error: Exception,
    record: ThroughputRecord,
    failed: list[str],
) -> None:
    reason = f"{subject.name} failed: {type(error).__name__}: {' '.join(str(error).split())}"
    subjects.remove(subject)
    record.not_measured[subject.name] = reason
    failed.append(reason)
    print(f"not measured: {reason}", flush=True)


def _machine(record: ThroughputRecord, subjects: list[MeasuredMethod]) -> Machine:
    where = record.environment
    on_gpu = any(subject.policy.device.type == "cuda" for subject in subjects)
    gpu = where.gpu if on_gpu else None
    return Machine(cpu=where.cpu, cpu_threads=where.cpu_threads, gpu=gpu)


def show(record: ThroughputRecord) -> None:
    """Print methods, their phases, and their ratios."""
    if not record.methods:
        return
    print_table(_methods(record))
    print_table(_phases(record))
    if record.ratios:
        print_table(_ratios(record))


def _table(record: ThroughputRecord, title: str, *headings: str) -> Table:
    """A table of which every row names its machine; the protocol is in the title."""
    table = Table(title=f"{title}; protocol {record.protocol}", title_justify="left")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    table.add_column("machine", justify="left", overflow="fold")
    return table


def _methods(record: ThroughputRecord) -> Table:
    rows = record.methods
    headings = ["method", "images sampled/s", "images trained/s", "s a round", "quartiles"]
    headings += ["first round", "in networks", "joules", "peak memory"]
    on_gpu = any(row.peak_gpu_reserved_bytes is not None for row in rows)
    headings += ["GPU allocated", "GPU reserved"] if on_gpu else []
    table = _table(record, f"{record.reward}, {record.rounds} rounds each", *headings)
    for row in rows:
        low, high = row.quartiles_seconds
        gpu = (row.peak_gpu_allocated_bytes or 0, row.peak_gpu_reserved_bytes or 0)
        table.add_row(
            row.method,
            numbers.number(row.sampled_images_per_second),
            numbers.number(row.trained_images_per_second),
            numbers.number(row.median_seconds),
            f"{numbers.number(low)} to {numbers.number(high)}",
            numbers.number(row.first_round_seconds),
            f"{100 * row.network_share:.1f} %",
            "not measured" if row.joules is None else numbers.number(row.joules),
            numbers.data_size(row.peak_memory_bytes),
            *(map(numbers.data_size, gpu) if on_gpu else []),
            str(row.machine),
        )
    return table


def _phases(record: ThroughputRecord) -> Table:
    rows = record.methods
    names = costs.in_order(name for row in rows for name in row.seconds_by_phase)
    table = _table(record, "share of each phase, %", "method", *names)
    for row in rows:
        total = sum(row.seconds_by_phase.values())
        shares = (100 * row.seconds_by_phase.get(name, 0.0) / total for name in names)
        table.add_row(row.method, *(f"{share:.1f}" for share in shares), str(row.machine))
    return table


def _ratios(record: ThroughputRecord) -> Table:
    title = "images trained/s, ratios with 95 % intervals"
    table = _table(record, title, "method", "over", "ratio", "interval")
    for each in record.ratios:
        interval = f"[{each.low:.3f}, {each.high:.3f}]" if each.pairs > 1 else "none of one pair"
        table.add_row(each.method, each.reference, f"{each.ratio:.3f}", interval, str(each.machine))
    return table
