"""The verdicts of the regression gate, and the exit codes that they lead to."""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """What the gate says of a comparison."""

    PASS = "pass"
    """No loss beyond the margin."""
    REGRESSION = "regression"
    """A loss beyond the margin that noise does not explain, or another trajectory."""
    IMPROVEMENT = "improvement"
    """A gain beyond the margin that noise does not explain."""
    INCONCLUSIVE = "inconclusive"
    """A loss beyond the margin that noise may explain."""
    MISSING = "missing"
    """In the baseline and not here."""
    NEW = "new"
    """Here and not in the baseline."""
    FAILED = "failed"
    """A cell failed, or a value is not finite."""
    PROTOCOL_CHANGED = "protocol changed"
    """Measured otherwise; not compared."""
    HARDWARE_CHANGED = "hardware changed"
    """Measured on another class of machine; not compared."""


EXIT_CODES = {
    0: "no regression: every comparison passed, improved, or is inconclusive",
    1: "regression confirmed",
    2: "comparisons are missing, new or failed; the others show no regression",
    3: "not comparable: no comparison in common or one renamed, another protocol, other hardware, "
    "or damage",
    4: "bad input: unknown option, unreadable file, unwritable file",
}
"""Exit code of ``gate`` to its meaning; the first that applies of 4, 1, 3, 2, 0."""
