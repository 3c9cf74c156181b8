"""The gallery: evaluation pictures of every method from the same noise, small enough to embed."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from reports.picks import RULES, Pick, picks
from results import scores
from results.store import Cell, Run, sample_path, whole

SHOWN_PIXELS = 128
"""Edge of a picture on the page, in CSS pixels."""

MOST_IMAGES = 4
"""Pictures of a prompt that are shown at most."""

EMBEDDED_BYTES = 2_800_000
"""Most bytes that the pictures may add to the page, as data URIs with their markup."""

MARKUP_BYTES = 320
"""Of one picture: its figure, alternative text and caption, rounded up."""


FEW_PROMPTS = 4
FEW_IMAGES = 2
"""What a panel shows where not all panels have room."""

MOST_KEPT = 200
"""Cells whose values of single images are held at a time."""


@dataclass(frozen=True)
class Picture:
    """One evaluation picture."""

    source: str
    """Data URI; empty if the file is missing or damaged."""
    value: float
    """Its reward; NaN if none is recorded."""


@dataclass(frozen=True)
class Column:
    """The pictures of one method: ``[prompts][images]``, empty unless its cell is done."""

    method: str
    state: str
    pictures: list[list[Picture]]
    picks: dict[str, list[tuple[Pick, Picture]]]
    """By rule, the pictures chosen of all of the evaluation, those not shown below included."""


@dataclass(frozen=True)
class Panel:
    """One training reward and seed."""

    task: str
    seed: int
    columns: list[Column]

    @property
    def rules(self) -> dict[str, str]:
        """Rules that chose a picture in some column, and how the page names them."""
        chosen = {rule for column in self.columns for rule in column.picks}
        return {rule: title for rule, title in RULES.items() if rule in chosen}


@dataclass(frozen=True)
class Gallery:
    """All panels, and how much of the evaluation they show."""

    panels: list[Panel]
    prompts: list[str]
    """Those shown, in the order of the evaluation."""
    all_prompts: int
    images: int
    """Pictures shown of each prompt."""
    all_images: int
    lossy: bool
    all_tasks: int = 0
    all_seeds: int = 0
    """Training rewards and seeds that have pictures, those not shown included."""

    @property
    def tasks(self) -> list[str]:
        """Training rewards, each once."""
        return list(dict.fromkeys(panel.task for panel in self.panels))

    @property
    def rules(self) -> set[str]:
        """Rules that chose a picture somewhere."""
        return {rule for panel in self.panels for rule in panel.rules}

    @property
    def seeds(self) -> list[int]:
        """Seeds, each once."""
        return list(dict.fromkeys(panel.seed for panel in self.panels))

    @property
    def noises(self) -> list[tuple[str, str]]:
        """Index of each picture of a prompt and the number it goes by."""
        return [(str(index), str(index + 1)) for index in range(self.images)]


EMPTY = Gallery([], [], 0, 0, 0, False)


@dataclass(frozen=True)
class Plan:
    """How many pictures are embedded, and how."""

    prompts: int
    images: int
    quality: int | None
    """WebP quality; None is lossless."""
    picks: bool = True
    """Whether pictures chosen by rule are shown."""
    tasks: int | None = None
    seeds: int | None = None
    """The first training rewards and seeds that have a panel; None for all."""


class _Cells:
    """Cells with the values of their single images, of which the last few are kept."""

    def __init__(self) -> None:
        self._kept: dict[str, Cell] = {}

    def whole(self, cell: Cell) -> Cell:
        if cell.cell_id not in self._kept:
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            self._kept[cell.cell_id] = whole(cell)
        return self._kept[cell.cell_id]


def build(run: Run, limit: int = EMBEDDED_BYTES, methods: Sequence[str] | None = None) -> Gallery:
    """The fullest gallery that stays below ``limit`` bytes of pictures, of some methods or all."""
    config = next((cell.config for cell in scores.done(run) if cell.config), None)
    prompts = config.evaluation_prompts if config else []
    images = config.images_per_prompt if config else 0
    tasks, seeds = scores.tasks(run), _seeds(run)
    columns = scores.methods(run) if methods is None else methods
    cells = _Cells()
    plans = list(_plans(len(prompts), min(images, MOST_IMAGES), len(tasks), len(seeds)))
    for plan in plans:
        panels = _panels(run, plan, columns, cells, math.inf if plan is plans[-1] else limit)
        if panels is not None:
            break
    assert panels is not None
    shown = prompts[: plan.prompts]
    lossy = plan.quality is not None
    return Gallery(
        *(panels, shown, len(prompts), plan.images, images, lossy, len(tasks), len(seeds))
    )


def _plans(prompts: int, images: int, tasks: int, seeds: int) -> Iterator[Plan]:
    """From the fullest to the smallest: first quality goes, then images, then prompts, then what
    was chosen by rule; last the panels, of which those left show a little more again."""
    few = (min(prompts, FEW_PROMPTS), min(images, FEW_IMAGES), 85)
    yield Plan(prompts, images, None)
    yield Plan(prompts, images, 90)
    while images > 1:
        images = math.ceil(images / 2)
        yield Plan(prompts, images, 85)
    while prompts > 1:
        prompts = math.ceil(prompts / 2)
        yield Plan(prompts, images, 85)
    yield Plan(prompts, images, 85, picks=False)
    while seeds > 1:
        seeds = math.ceil(seeds / 2)
        yield Plan(*few, seeds=seeds)
    while tasks > 1:
        tasks = math.ceil(tasks / 2)
        yield Plan(*few, tasks=tasks, seeds=1)
    yield Plan(prompts, images, 85, picks=False, tasks=1, seeds=1)


def _panels(
    run: Run, plan: Plan, methods: Sequence[str], cells: _Cells, limit: float
) -> list[Panel] | None:
    """All of them, or None where they take more than ``limit`` bytes; then most are not made."""
    tasks, seeds = scores.tasks(run)[: plan.tasks], _seeds(run)[: plan.seeds]
    if len(tasks) * len(seeds) * plan.prompts * plan.images * MARKUP_BYTES > limit:
        return None  # with a single method already
    panels, used = [], 0
    for task in tasks:
        for seed in seeds:
            panels.append(_panel(run, task, seed, plan, methods, cells))
            used += _embedded_bytes(panels[-1:])
            if used > limit:
                return None
    return panels


def _seeds(run: Run) -> list[int]:
    return sorted({cell.seed for cell in scores.done(run)})


def _panel(
    run: Run, task: str, seed: int, plan: Plan, methods: Sequence[str], cells: _Cells
) -> Panel:
    columns = []
    for method in methods:
        of_seed = (cell for cell in scores.cells_of(run, method, task) if cell.seed == seed)
        if (cell := next(of_seed, None)) is not None:
            done = scores.is_done(cell)
            cell = cells.whole(cell) if done else cell
            shown = _pictures(cell, task, plan) if done else []
            chosen = _picks(cell, task, plan) if done else {}
            columns.append(Column(method, cell.status.state, shown, chosen))
    return Panel(task, seed, columns)


def _pictures(cell: Cell, task: str, plan: Plan) -> list[list[Picture]]:
    values = cell.picked.rewards.get(task, [])
    return [
        [
            Picture(_data_uri(cell, prompt, image, plan.quality), _value(values, prompt, image))
            for image in range(plan.images)
        ]
        for prompt in range(plan.prompts)
    ]


def _picks(cell: Cell, task: str, plan: Plan) -> dict[str, list[tuple[Pick, Picture]]]:
    found: dict[str, list[tuple[Pick, Picture]]] = {}
    for pick in picks(cell, task) if plan.images and plan.picks else []:
        source = _data_uri(cell, pick.prompt, pick.image, plan.quality)
        found.setdefault(pick.rule, []).append((pick, Picture(source, pick.value)))
    return found


def _value(values: list[list[float]], prompt: int, image: int) -> float:
    if prompt < len(values) and image < len(values[prompt]):
        return values[prompt][image]
    return math.nan


def _data_uri(cell: Cell, prompt: int, image: int, quality: int | None) -> str:
    try:
        with Image.open(sample_path(cell.folder, prompt, image)) as opened:
            picture = opened.convert("RGB")
    except (OSError, UnidentifiedImageError):
        return ""
    picture.thumbnail((SHOWN_PIXELS, SHOWN_PIXELS), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    picture.save(content, "WEBP", lossless=quality is None, quality=quality or 100)
    return "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()


def _embedded_bytes(panels: list[Panel]) -> int:
    return sum(
        len(picture.source) + MARKUP_BYTES
        for panel in panels
        for column in panel.columns
        for picture in (
            *(picture for row in column.pictures for picture in row),
            *(picture for chosen in column.picks.values() for _, picture in chosen),
        )
    )
