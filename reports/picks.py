"""Pictures of a cell chosen by rule, so that nobody chooses those that suit a claim."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from results import store
from results.store import Cell, ResultsError

RULES = {
    "worst": "Worst: lowest reward",
    "median": "Median reward",
    "best": "Best: highest reward",
    "pair": "Most similar pair",
}
"""Rules by name, as the page names them. All look at every picture of the reported evaluation; of
equal ones the first counts. The median of an even number is the lower of the two in the middle."""


@dataclass(frozen=True)
class Pick:
    """One picture and the rule that chose it; ``pair`` has two of one prompt."""

    rule: str
    prompt: int
    image: int
    value: float
    """Its reward."""
    distance: float = math.nan
    """Of the pair: cosine distance in the features of the first encoder."""


def picks(cell: Cell, task: str) -> list[Pick]:
    """Those of a cell that is done, by the reward ``task``; empty where nothing was scored."""
    values = cell.picked.rewards.get(task, [])
    ranked = sorted(
        (value, prompt, image)
        for prompt, images in enumerate(values)
        for image, value in enumerate(images)
        if math.isfinite(value)
    )
    if not ranked:
        return []
    places = {"worst": 0, "median": (len(ranked) - 1) // 2, "best": len(ranked) - 1}
    found = []
    for rule, place in places.items():
        value = ranked[place][0]
        _, prompt, image = next(entry for entry in ranked if entry[0] == value)
        found.append(Pick(rule, prompt, image, value))
    return [*found, *_pair(cell, values)]


def _pair(cell: Cell, values: list[list[float]]) -> list[Pick]:
    """The two pictures of one prompt that are nearest; none without stored features."""
    try:
        features = store.load_features(store.features_path(cell.folder, cell.picked.round))
    except ResultsError:
        return []
    vectors = next(iter(features.values()), np.empty((0, 0, 0))).astype(np.float64)
    if vectors.shape[:2] != (len(values), len(values[0])) or vectors.shape[1] < 2:
        return []
    vectors /= np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    distances = 1 - vectors @ vectors.swapaxes(-1, -2)  # [prompts, images, images]
    upper = np.triu(np.ones(distances.shape[1:], dtype=bool), k=1)
    distances = np.where(upper & np.isfinite(distances), distances, np.inf)
    prompt, *pair = map(int, np.unravel_index(distances.argmin(), distances.shape))
    distance = float(distances[prompt, pair[0], pair[1]])
    if not math.isfinite(distance):
        return []
    distance = max(0.0, distance)
    return [Pick("pair", prompt, image, values[prompt][image], distance) for image in pair]
