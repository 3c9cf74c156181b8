"""What detectors say of a cell's stored pictures.

The pictures of the picked evaluation are stored whole, so that what looks at them needs no image
made anew. What looks is handed in; here is what is read and recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from results import store
from results.records import MeasuredValue, MeasureRecord
from results.scores import done
from results.store import Cell, ResultsError, Run

Picture = NDArray[np.uint8]
"""``[H, W, 3]``."""

Values = Callable[[Sequence[Picture]], list[float]]
"""One number a picture."""


def with_pictures(run: Run) -> list[Cell]:
    """Cells that are done and have every picture of their picked evaluation."""
    return [cell for cell in done(run) if all(path.is_file() for _, path in _places(cell))]


def detect_and_write(run: Run, declared: MeasureRecord, network: str, values: Values) -> None:
    """Look at the pictures of every cell that has them, and write each record whole.

    ``declared`` is what the detector says of itself, without values. Raises ``OSError`` and, for a
    picture that cannot be read, ``ResultsError``.
    """
    for cell in with_pictures(run):
        value = _measured(cell, network, values)
        record = declared.model_copy(update={"values": [value]})
        store.write_json(store.measure_path(cell.folder, declared.metric), record)


def _measured(cell: Cell, network: str, values: Values) -> MeasuredValue:
    places = _places(cell)
    found = np.array(values([_read(path) for _, path in places]), dtype=float)
    prompts = np.array([prompt for prompt, _ in places])
    means = [float(found[prompts == prompt].mean()) for prompt in dict.fromkeys(prompts.tolist())]
    return MeasuredValue(
        round=cell.picked.round,
        encoder=network,
        value=float(np.mean(means)),
        details={"images": float(len(found)), "sum": float(found.sum())},
        per_prompt=means,
    )


def _places(cell: Cell) -> list[tuple[int, Path]]:
    """Prompt and path of each picture."""
    config = cell.config
    if config is None:  # no cell is done without
        return []
    return [
        (prompt, store.sample_path(cell.folder, prompt, image))
        for prompt in range(len(config.evaluation_prompts))
        for image in range(config.images_per_prompt)
    ]


def _read(path: Path) -> Picture:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise ResultsError(f"{path}: cannot be read as a picture") from error
