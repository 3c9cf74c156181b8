"""What the protocol fixes and picked, arranged for the page; its hash in every table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from reports.shown import Shown
from results import anchors, numbers, picks, samplers
from results.picks import Picks
from results.samplers import SamplerRow
from results.store import Run

_TABLE = re.compile(r"(<table\b[^>]*>)(\s*<caption>(?P<caption>.*?)</caption>)?", re.DOTALL)


def stamped(page: str, protocol: str) -> Markup:
    """Markup with the hash of the protocol in the caption of every table."""
    mark = Markup('<span class="protocol">protocol <code>{}</code></span>').format(protocol)

    def with_mark(found: re.Match[str]) -> str:
        caption = f"{found['caption']} · {mark}" if found["caption"] else mark
        return f"{found[1]}<caption>{caption}</caption>"

    return Markup(_TABLE.sub(with_mark, page))  # noqa: S704 (escaped before, as a template's block)


def eta(value: float) -> str:
    """A noise of the sampler as a suite writes it."""
    return f"{value:g}"


@dataclass(frozen=True)
class SamplerTable:
    """Rows of one training reward with the decimals of their columns."""

    task: str
    rows: list[SamplerRow]
    places: dict[str, int]


def context(run: Run, shown: Shown) -> dict[str, Any]:
    """What the section of the protocol shows, and the sentence on what normalises rewards."""
    return {
        "anchors_sentence": anchors.describe(run),
        "picks_sentence": picks.describe(run),
        "picks": _validated(run),
        "etas": samplers.etas(run),
        "samplers": [table for task in shown.tasks if (table := _samplers(run, task, shown)).rows],
    }


def _validated(run: Run) -> list[Picks]:
    """Cells that had something to pick by."""
    return [each for each in picks.picks(run) if each.rule != "last"]


def _samplers(run: Run, task: str, shown: Shown) -> SamplerTable:
    rows = [row for row in samplers.sampler_table(run, task) if row.method in shown.methods]
    columns = {
        "reward": [row.reward for row in rows],
        "change": [change for row in rows for change in (row.to_first, row.gain)],
        "diversity": [value for row in rows for value in row.diversity.values()],
    }
    places = {name: numbers.column_decimals(values) for name, values in columns.items()}
    return SamplerTable(task, rows, places)
