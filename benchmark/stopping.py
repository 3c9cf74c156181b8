"""How a cell's process is asked to stop, and how it never outlives its run."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(BaseException):
    """The cell was asked to stop and has; no ``Exception``, so that nothing mistakes it for a
    failure."""


class Stop:
    """Whether the cell was asked to stop.

    A training round is finished first, so that its state is whole. Inside :meth:`interruptible`,
    where nothing changes that is saved, the request takes effect at once.
    """

    def __init__(self) -> None:
        self.requested = False
        self._at_once = False

    def listen(self) -> None:
        """Take SIGTERM as the request."""
        signal.signal(signal.SIGTERM, self._request)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if self._at_once:
            self._at_once = False
            raise Stopped

    def check(self) -> None:
        """Raise ``Stopped`` if it was asked for."""
        if self.requested:
            raise Stopped

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """``Stopped`` may be raised at any moment inside."""
        self._at_once = True
        try:
            self.check()  # after the line before: a request in between would be missed
            yield
        finally:
            self._at_once = False


def end_with_run() -> None:
    """End this process at once when the process of the run ends, be it killed.

    Otherwise it would go on writing into a folder that the next run takes up.
    """
    run = multiprocessing.parent_process()
    if run is None:
        return

    def watch() -> None:
        run.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
