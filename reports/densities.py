"""Pictures of densities in the plane: what each method samples, beside what it should."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from reports.shown import Shown
from results.exactness import DensityRow, density_table, mean_grids
from results.store import Run

PIXELS_A_CELL = 6
RAMP = ((255, 255, 255), (158, 202, 225), (33, 113, 181), (8, 29, 88))
"""White for nothing to dark blue for the most there is in the target."""


@dataclass(frozen=True)
class Drawn:
    """One method: its row of the table and two pictures as data URIs."""

    row: DensityRow
    sample: str
    target: str
    """Empty for a method that declares none."""


def build(run: Run, shown: Shown) -> dict[str, list[Drawn]]:
    """By training reward, the methods with exact metrics."""
    return {
        task: [
            _drawn(run, row, task)
            for row in density_table(run, task)
            if row.method in shown.methods
        ]
        for task in shown.tasks
    }


def _drawn(run: Run, row: DensityRow, task: str) -> Drawn:
    grids = mean_grids(run, row.method, task)
    most = float(grids.get("target", grids["base"]).max())
    target = picture(grids["target"], most) if "target" in grids else ""
    return Drawn(row, picture(grids["sample"], most), target)


def picture(grid: np.ndarray, most: float) -> str:
    """PNG as a data URI: first coordinate to the right, second up; ``most`` is darkest.

    Shades go with the square root of the probability, so that the thin parts are seen.
    """
    level = np.sqrt(np.clip(grid / most, 0, 1)).T[::-1]
    stops = np.linspace(0, 1, len(RAMP))
    channels = [np.interp(level, stops, [colour[i] for colour in RAMP]) for i in range(3)]
    image = Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8))
    size = PIXELS_A_CELL * grid.shape[0]
    content = io.BytesIO()
    image.resize((size, size), Image.Resampling.NEAREST).save(content, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
