"""Seconds by name, each second charged to one name."""

from __future__ import annotations

from collections.abc import Callable


class Clock:
    """Charges time to the innermost name entered; inside ``None``, and outside all, to nothing.

    ``now`` gives seconds, never fewer than before.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._charged: dict[str, float] = {}
        self._entered: list[str | None] = []
        self._since = now()

    @property
    def innermost(self) -> str | None:
        """The name that time is charged to."""
        return self._entered[-1] if self._entered else None

    def enter(self, name: str | None) -> None:
        """Charge to ``name`` from here on, until :meth:`leave`."""
        self._charge()
        self._entered.append(name)

    def leave(self) -> None:
        """Charge to the name entered before again."""
        self._charge()
        self._entered.pop()

    def switch(self, name: str | None) -> None:
        """Charge to ``name`` in place of the innermost."""
        self._charge()
        self._entered[-1] = name

    def read(self) -> dict[str, float]:
        """Seconds of each name up to now."""
        self._charge()
        return dict(self._charged)

    def set(self, seconds: dict[str, float]) -> None:
        """Go on from these."""
        self._charge()
        self._charged = dict(seconds)

    def _charge(self) -> None:
        now, name = self._now(), self.innermost
        if name is not None:
            self._charged[name] = self._charged.get(name, 0.0) + now - self._since
        self._since = now
