"""The table of exact metrics, and what the verdict says of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reports import densities
from reports.html import render
from reports.shown import ALL, shown
from results import density, store, verdict
from results.exactness import COLUMNS, density_table, describe, has_densities, mean_grids
from results.records import DensityRecord, EvaluationRecord
from results.store import Run
from tests.results.synthetic import Synthetic


def record(method: str, seed: int) -> DensityRecord:
    """As a method with a target, or, for ddpo, as one that collapsed onto one mode of eight."""
    declares = method in ("base", "dag")
    return DensityRecord(
        target={"base": "p_base", "dag": "exp(beta r)"}.get(method, "none, it maximises"),
        beta=2.0 if method == "dag" else None,
        points=65536,
        total_variation=0.05 + 0.01 * seed if declares else None,
        total_variation_floor=0.018 if declares else None,
        divergence=0.02 if declares else None,
        divergence_floor=0.003 if declares else None,
        base_total_variation=0.04,
        base_total_variation_floor=0.017,
        modes_covered=8 if declares else 1,
        modes=8,
        reward=None if method == "base" else 0.5,
        target_reward=0.6 if method == "dag" else None,
        entropy=2.3 if declares else -0.5,
        target_entropy=2.4 if declares else None,
        base_entropy=2.4,
        outside=0.0,
    )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    folder = Synthetic(tmp_path / "run").write()
    for cell in store.read_run(folder).cells.values():
        if cell.status.state != "done":
            continue
        last = record(cell.method, cell.seed)
        path = cell.folder / "evaluations.jsonl"
        records = store.read_jsonl(path, EvaluationRecord)
        records[-1] = records[-1].model_copy(update={"density": last})
        store.write_jsonl(path, records)
        grid = np.full((density.CELLS, density.CELLS), 1 / density.CELLS**2)
        grid[0, 0] += 0.1 * cell.seed
        grids = {"sample": grid, "base": grid}
        if last.total_variation is not None:
            grids["target"] = grid
        store.save_density(cell.folder / "density.safetensors", grids)
    return store.read_run(folder)


def test_means_and_intervals_are_over_seeds(run: Run) -> None:
    rows = {row.method: row for row in density_table(run, "style")}
    dag = rows["dag"]
    assert dag.target == "exp(2 r)" and dag.declares and not dag.collapsed
    assert dag.values["total_variation"].mean == pytest.approx(0.055)
    assert dag.values["total_variation"].values == {0: 0.05, 1: pytest.approx(0.06)}
    assert set(dag.values) == set(COLUMNS)
    assert "reward" not in rows["base"].values and rows["base"].target == "p_base"
    assert not rows["ddpo"].declares and rows["ddpo"].collapsed
    assert "total_variation" not in rows["ddpo"].values


def test_a_run_without_them_has_no_table_and_no_section(tmp_path: Path) -> None:
    plain = store.read_run(Synthetic(tmp_path / "run").write())
    assert not has_densities(plain)
    assert density_table(plain, "style") == []
    page = render(plain)
    assert 'id="densities"' not in page and 'id="pictures"' in page


def test_the_verdict_tells_distance_and_collapse_in_numbers(run: Run) -> None:
    said = [str(claim) for claim in verdict.claims(run, "style")]
    assert any("dag 0.055 from exp(2 r) (floor 0.018)" in text for text in said)
    (lost,) = [text for text in said if text.startswith("Collapsed")]
    assert "ddpo 1.0 of 8 modes, entropy \u22120.50 nats against 2.40 of p_base" in lost
    assert "dag " not in lost


def test_pictures_are_means_over_seeds_beside_the_target(run: Run) -> None:
    grids = mean_grids(run, "dag", "style")
    assert grids["sample"][0, 0] == pytest.approx(1 / density.CELLS**2 + 0.05)
    drawn = {each.row.method: each for each in densities.build(run, shown(run, ALL))["style"]}
    assert drawn["dag"].sample.startswith("data:image/png;base64,")
    assert drawn["dag"].target and not drawn["ddpo"].target
    page = render(run)
    assert 'id="densities"' in page and 'id="pictures"' not in page


def test_a_picture_has_the_first_coordinate_to_the_right_and_the_second_up() -> None:
    import base64
    import io

    from PIL import Image

    grid = np.zeros((density.CELLS, density.CELLS))
    grid[-1, 0] = 1.0  # large first coordinate, small second: lower right
    data = densities.picture(grid, 1.0).partition("base64,")[2]
    image = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    size = image.size[0] - 1
    assert image.getpixel((size, size)) == densities.RAMP[-1]
    assert image.getpixel((0, 0)) == image.getpixel((size, 0)) == densities.RAMP[0]


def test_the_formula_carries_the_number() -> None:
    assert describe(record("dag", 0)) == "exp(2 r)"
    assert describe(record("ddpo", 0)) == "none, it maximises"
