"""Checkpoints of a cell's training: written on the way, checked, and taken up again.

They lie in ``checkpoints/`` of the cell's folder, named after how far the cell was and the SHA-256
of their content: ``r12-e1-<sha256>.safetensors`` is after round 12, one evaluation made. The two
newest are kept until the cell is done.

A checkpoint vouches for the logs of its cell up to their length then; what came later is cut off
when it is taken up, and made again.
"""

from __future__ import annotations

import contextlib
import math
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark import memory, state_file
from benchmark.jobs import CellJob
from benchmark.protocol import digest
from benchmark.state_file import Damaged
from results import store

OF_ANY_ATTEMPT = ("config.json", "environment.json", "status.json", "log.txt")
LOGS = ("metrics.jsonl", "evaluations.jsonl")
FEATURES = "features"
KEPT = 2
SHARE = 0.01
"""Most of a cell's time that its checkpoints take, where no number of rounds is asked for."""
VERSION = 2
"""Of what is in a checkpoint; another is not taken up."""
NAME = re.compile(r"r(?P<round>\d+)-e(?P<evaluations>\d+)-(?P<sha256>[0-9a-f]{64})\.safetensors")


def identity(job: CellJob) -> str:
    """Hash of all that has to be the same for a cell to go on from a checkpoint: its key, and what
    beyond it changes a result by rounding."""
    return digest(
        {
            "version": VERSION,
            **job.identity,
            "model": job.model.model_dump(mode="json", exclude={"name"}),  # may be a path
            "evaluation": job.evaluation.model_dump(mode="json"),
        }
    )


@dataclass(frozen=True)
class Position:
    """How far a cell is."""

    round: int = 0
    evaluations: int = 0

    def __str__(self) -> str:
        return f"r{self.round}-e{self.evaluations}"


class History:
    """What a cell cost up to now, the attempts before this one included."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        """What was wrong with checkpoints, a line each."""
        self.resumed_after: list[int] = []
        """The rounds after which training went on from a checkpoint."""
        self.training_peaks: dict[str, Any] = {}
        """As :attr:`peaks`, of training rounds alone where the system tells them apart from what
        was before; empty before any."""
        self._started = time.perf_counter()
        self._earlier: dict[str, Any] = {"seconds": 0.0}

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of all that is part of the cell as it is."""
        return float(self._earlier["seconds"]) + time.perf_counter() - self._started

    @property
    def peaks(self) -> dict[str, Any]:
        """Largest of each figure of memory in bytes, None where it was never measured."""
        return _largest(memory.peaks(), self._earlier)

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Within a training round, whose memory is told apart from that of evaluations."""
        self._earlier |= self.peaks
        memory.reset()
        yield
        self.training_peaks = _largest(memory.peaks(), self.training_peaks)

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "seconds": self.seconds,
            **self.peaks,
            "training_peaks": dict(self.training_peaks),
            "notes": list(self.notes),
            "resumed_after": list(self.resumed_after),
        }

    def go_on(self, round_: int, earlier: dict[str, Any]) -> None:
        """Add what :meth:`state_dict` gave after a round, in an attempt before this one."""
        self._earlier = dict(earlier)
        self.training_peaks = dict(earlier["training_peaks"])
        self.notes = [*earlier["notes"], *self.notes]
        self.resumed_after = [*earlier["resumed_after"], round_]


def _largest(now: Mapping[str, int | None], earlier: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: (value, earlier.get(name)) for name, value in now.items()}
    return {
        name: max((v for v in values if v is not None), default=None)
        for name, values in known.items()
    }


@dataclass
class TrainingCheckpoints:
    """The checkpoints of one cell."""

    folder: Path
    """Of the cell."""
    identity: str
    every: int | None = None
    """Rounds between two; None for as many as keep them within ``SHARE`` of the time."""
    history: History = field(default_factory=History)
    saved: Position | None = None
    """Where the newest was taken."""
    taken_up: str = ""
    """Name of the one that was taken up."""
    _seconds: float = 0.0
    """That writing the last one took."""
    _written: float = -math.inf

    def due(self, round_: int) -> bool:
        """Whether to save after a training round."""
        if self.every is not None:
            return round_ % self.every == 0
        return (time.perf_counter() - self._written) * SHARE >= self._seconds

    def save(self, position: Position, state: dict[str, Any]) -> None:
        """Write a checkpoint, and remove all but the newest. A full disk is noted, no failure."""
        if position == self.saved:
            return
        started = time.perf_counter()
        try:
            content = {"identity": self.identity, "logs": self._vouch()} | state
            content["history"] = self.history.state_dict()
            packed = state_file.pack(content)
            name = f"{position}-{state_file.checksum(packed)}.safetensors"
            store.write_bytes(store.checkpoints_folder(self.folder) / name, packed, durable=True)
        except OSError as error:
            self._note(f"no checkpoint could be written at {position}: {error.strerror}")
        else:
            self.saved = position
            for path in self._newest_first()[KEPT:]:
                path.unlink(missing_ok=True)
        self._written = time.perf_counter()
        self._seconds = self._written - started

    def take_up(self) -> tuple[Position, dict[str, Any]] | None:
        """The newest checkpoint that is whole and of this cell, or None.

        Any newer one is noted and removed, and so is all else in the cell's folder but its log,
        configuration and status and what the checkpoint vouches for.
        """
        found = None
        for path in self._newest_first():
            position = _position(path)
            try:
                state = self._read(path)
            except Damaged as error:
                self._note(f"checkpoint {position} is not used: {error}")
                path.unlink()
            else:
                found, self.saved, self.taken_up = (position, state), position, path.name
                break
        self._clear(found[1] if found else None)
        if found:
            self.history.go_on(found[0].round, found[1]["history"])
        print(f"goes on from checkpoint {found[0]}" if found else "starts anew", flush=True)
        return found

    def read(self, name: str) -> tuple[Position, dict[str, Any]]:
        """The checkpoint that another process of the cell has taken up; raises ``Damaged``."""
        path = store.checkpoints_folder(self.folder) / name
        return _position(path), self._read(path)

    def remove(self) -> None:
        """Remove all, once the cell is done."""
        shutil.rmtree(store.checkpoints_folder(self.folder), ignore_errors=True)

    def _vouch(self) -> dict[str, Any]:
        """Lengths and checksums of the logs, and the features that belong to them, all of which
        are on the disk now."""
        logs = {}
        for name in LOGS:
            path = self.folder / name
            if path.exists():
                store.sync(path)
                content = path.read_bytes()
                logs[name] = {
                    "bytes": len(content),
                    "sha256": state_file.checksum(content),
                }
        features = sorted((self.folder / FEATURES).glob("[!.]*"))
        for path in features:
            store.sync(path)
        return {"files": logs, "features": [path.name for path in features]}

    def _read(self, path: Path) -> dict[str, Any]:
        """What :meth:`save` wrote; raises ``Damaged``."""
        match = NAME.fullmatch(path.name)
        assert match is not None  # of _newest_first
        try:
            content = path.read_bytes()
        except OSError as error:
            raise Damaged(f"it cannot be read: {error.strerror}") from error
        if state_file.checksum(content) != match["sha256"]:
            raise Damaged("its SHA-256 is not that of its name")
        state = state_file.unpack(content)
        if not isinstance(state, dict) or state.get("identity") != self.identity:
            raise Damaged("it is of other settings or other code")
        for name, log in state["logs"]["files"].items():
            there = self.folder / name
            content = there.read_bytes()[: log["bytes"]] if there.exists() else b""
            if state_file.checksum(content) != log["sha256"]:
                raise Damaged(f"{name} is not what it was then")
        for name in state["logs"]["features"]:
            if not (self.folder / FEATURES / name).exists():
                raise Damaged(f"{FEATURES}/{name} is missing")
        return state

    def _clear(self, state: dict[str, Any] | None) -> None:
        """Remove from the cell's folder what ``state`` does not vouch for, and cut its logs."""
        vouched = state["logs"] if state else {"files": {}, "features": []}
        kept = {self.folder / name for name in (*OF_ANY_ATTEMPT, *vouched["files"])}
        kept |= {self.folder / FEATURES / name for name in vouched["features"]}
        kept |= set(self._newest_first())
        if any(store.checkpoints_folder(self.folder).glob(".*")):
            self._note("a checkpoint that was being written is left out")
        for path in sorted(self.folder.rglob("*"), reverse=True):  # a folder after what is in it
            if path.is_dir():
                with contextlib.suppress(OSError):  # not empty
                    path.rmdir()
            elif path not in kept:
                path.unlink()
        for name, log in vouched["files"].items():
            with (self.folder / name).open("r+b") as stream:
                stream.truncate(log["bytes"])

    def _newest_first(self) -> list[Path]:
        paths = [
            p for p in store.checkpoints_folder(self.folder).glob("r*") if NAME.fullmatch(p.name)
        ]

        def order(path: Path) -> tuple[int, int]:
            return _position(path).round, _position(path).evaluations

        return sorted(paths, key=order, reverse=True)

    def _note(self, text: str) -> None:
        self.history.notes.append(text)
        print(text, flush=True)


def _position(path: Path) -> Position:
    match = NAME.fullmatch(path.name)
    assert match is not None
    return Position(int(match["round"]), int(match["evaluations"]))
