"""How a cell's process stops: after its round, at once where it may, and with its run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmark import claims
from benchmark.stopping import Stop, Stopped
from tests.benchmark.conftest import environment
from tests.benchmark.killing import wait_for


@pytest.fixture
def stop() -> Iterator[Stop]:
    before = signal.getsignal(signal.SIGTERM)
    stop = Stop()
    stop.listen()
    yield stop
    signal.signal(signal.SIGTERM, before)


def ask() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_request_waits_where_state_changes(stop: Stop) -> None:
    ask()
    assert stop.requested
    with pytest.raises(Stopped):
        stop.check()
    with pytest.raises(Stopped), stop.interruptible():
        raise AssertionError("it begins")


def test_a_request_takes_effect_at_once_where_nothing_does(stop: Stop) -> None:
    unwound = False
    with pytest.raises(Stopped), stop.interruptible():
        try:
            ask()
            raise AssertionError("it goes on")
        finally:
            ask()  # a second one does not disturb the end
            unwound = True
    assert unwound and stop.requested


CHILD = """
import multiprocessing, os, time
from benchmark import stopping

def cell(sender):
    stopping.end_with_run()
    sender.send(os.getpid())
    time.sleep(60)

if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    context.Process(target=cell, args=(sender,), daemon=True).start()
    print(receiver.recv(), flush=True)
    time.sleep(60)
"""


def test_a_cell_ends_with_its_run(tmp_path_factory: pytest.TempPathFactory) -> None:
    script = tmp_path_factory.mktemp("run") / "run.py"
    script.write_text(CHILD, encoding="utf-8")
    run = subprocess.Popen(
        [sys.executable, script], env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    cell = int(run.stdout.readline())
    assert claims.started(cell) is not None
    run.kill()
    run.wait()
    wait_for(lambda: claims.started(cell) is None, seconds=10)
    run.stdout.close()


def test_ctrl_c_while_it_loads_is_one_line(tmp_path: Path) -> None:
    """A terminal sends it to all processes of the run, the one that still imports among them."""
    command = [sys.executable, "-m", "benchmark", "run", "--suite", "mixture", "--methods", "ddpo"]
    run = subprocess.Popen(
        [*command, "--seeds", "0", "--workers", "1", "--out", "run"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # Begun in the background, the tests themselves may be deaf to it, which is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert run.stdout is not None
    assert "cells to run" in run.stdout.readline()
    wait_for(lambda: any((tmp_path / "run" / "claims").glob("*.json")), seconds=60)
    time.sleep(2)  # it takes longer to import
    os.killpg(run.pid, signal.SIGINT)
    said = run.stdout.read()
    run.stdout.close()
    assert run.wait() == 130
    assert "Traceback" not in said and "interrupted with 0 of" in said
