"""Numbers as text, to as many digits as their interval supports."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

from results.intervals import Interval

MINUS = "\u2212"
"""The sign that is as wide as a plus."""


def decimals(interval: Interval) -> int:
    """Decimals that give the half width two significant digits, or the mean three without one."""
    width = interval.half_width
    if math.isfinite(width) and width > 0:
        # Differences that are equal but for rounding have a width of 1e-17.
        return min(_places(width, 2), _places(max(abs(interval.mean), width), 4))
    return _places(interval.mean, 3)


def number(value: float, places: int | None = None, sign: bool = False) -> str:
    """A number with a true minus sign; three significant digits unless ``places`` says more."""
    if not math.isfinite(value):
        return "not finite" if not math.isnan(value) else "\u2013"
    text = f"{abs(value):,.{_places(value, 3) if places is None else places}f}"
    negative = value < 0 and text.strip("0.,") != ""
    return (MINUS if negative else "+" if sign else "") + text


def column_decimals(intervals: Iterable[Interval]) -> int:
    """Decimals for a column of intervals, so that its numbers line up: the median of theirs."""
    places = [decimals(interval) for interval in intervals if interval.seeds]
    return statistics.median_low(places) if places else 0


def _shown_places(interval: Interval, places: int | None) -> int:
    """Decimals of a column, or an interval's own where only they tell its ends apart."""
    own = decimals(interval)
    if places is None:
        return own
    return own if _ends_meet(interval, places) and not _ends_meet(interval, own) else places


def _ends_meet(interval: Interval, places: int) -> bool:
    if not math.isfinite(interval.half_width):
        return True
    return round(interval.low, places) == round(interval.high, places)


def mean(interval: Interval, places: int | None = None, sign: bool = False) -> str:
    """The mean alone."""
    return number(interval.mean, _shown_places(interval, places), sign)


def bounds(interval: Interval, places: int | None = None) -> str:
    """``[low, high]``, empty with fewer than two seeds."""
    if not math.isfinite(interval.half_width):
        return ""
    places = _shown_places(interval, places)
    return f"[{_end(interval.low, places)}, {_end(interval.high, places)}]"


def _end(value: float, places: int) -> str:
    """An end keeps its sign where it rounds to zero: it says whether the interval holds zero."""
    text = number(value, places)
    return MINUS + text if value < 0 and not text.startswith(MINUS) else text


def difference(interval: Interval, places: int | None = None) -> str:
    """A signed mean with its bounds."""
    return f"{mean(interval, places, sign=True)} {bounds(interval, places)}".rstrip()


def p_value(p: float) -> str:
    """Three decimals; ``< 0.001`` below what they show."""
    if not math.isfinite(p):
        return "\u2013"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def share(value: float) -> str:
    """A share of one in percent."""
    return f"{100 * value:.0f}\u00a0%" if math.isfinite(value) else "\u2013"


def count(value: int, noun: str) -> str:
    """``1 seed``, ``2 seeds``."""
    return f"{value:,} {noun}" + ("" if value == 1 else "s")


def duration(seconds: float) -> str:
    """Seconds, minutes and seconds, or hours and minutes."""
    if not math.isfinite(seconds):
        return "\u2013"
    if seconds < 99.5:
        return f"{number(seconds, 1 if seconds < 9.95 else 0)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def data_size(size: int) -> str:
    """Bytes in MiB or GiB."""
    if size <= 0:
        return "\u2013"
    return f"{size / 2**20:,.0f} MiB" if size < 2**30 else f"{size / 2**30:,.2f} GiB"


def or_unmeasured(value: float, text: str) -> str:
    """``text``, or that there is no such number."""
    return "not measured" if math.isnan(value) else text


def _places(value: float, digits: int) -> int:
    if not math.isfinite(value) or value == 0:
        return digits - 1
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))
