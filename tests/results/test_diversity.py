"""Mean pairwise cosine distance within a prompt."""

from __future__ import annotations

import math

import numpy as np
import pytest

from results.diversity import pairwise_cosine_distance


def test_equal_images_have_none_and_orthogonal_ones_have_one() -> None:
    equal = np.tile([0.3, -0.4, 0.1], (4, 1))
    orthogonal = np.eye(4, 3, k=0)[:3]
    assert pairwise_cosine_distance([equal]) == pytest.approx([0.0], abs=1e-12)
    assert pairwise_cosine_distance([orthogonal]) == pytest.approx([1.0])
    assert pairwise_cosine_distance([[[1.0, 0.0], [-2.0, 0.0]]]) == pytest.approx([2.0])


def test_it_is_the_mean_over_pairs() -> None:
    features = np.random.default_rng(0).normal(size=(3, 5, 7))
    expected = []
    for prompt in features:
        distances = [
            1 - prompt[i] @ prompt[j] / np.linalg.norm(prompt[i]) / np.linalg.norm(prompt[j])
            for i in range(5)
            for j in range(i)
        ]
        expected.append(np.mean(distances))
    assert pairwise_cosine_distance(features) == pytest.approx(expected, abs=1e-12)


def test_scale_does_not_matter_and_the_number_of_images_does_not_bias() -> None:
    random = np.random.default_rng(1)
    features = random.normal(1, 1, size=(200, 16, 8))
    scaled = features * random.uniform(0.1, 9, size=(200, 16, 1))
    assert pairwise_cosine_distance(scaled) == pytest.approx(pairwise_cosine_distance(features))
    few = np.mean(pairwise_cosine_distance(features[:, :2]))
    many = np.mean(pairwise_cosine_distance(features))
    assert few == pytest.approx(many, rel=0.1)


def test_a_collapse_within_prompts_is_seen_though_prompts_differ() -> None:
    random = np.random.default_rng(2)
    prompts = random.normal(size=(20, 1, 32))
    diverse = prompts + random.normal(0, 0.6, size=(20, 8, 32))
    collapsed = prompts + random.normal(0, 0.02, size=(20, 8, 32))
    ratio = np.mean(pairwise_cosine_distance(diverse)) / np.mean(
        pairwise_cosine_distance(collapsed)
    )
    assert ratio > 100
    # Pooled over prompts the two would look alike.
    pooled = [
        pairwise_cosine_distance(features.reshape(1, -1, 32))[0]
        for features in (diverse, collapsed)
    ]
    assert pooled[0] / pooled[1] < 1.1


def test_features_without_direction_give_nan_for_their_prompt_only() -> None:
    features = np.random.default_rng(3).normal(size=(3, 4, 5))
    features[0, 2] = 0
    features[1, 0, 1] = math.inf
    first, second, third = pairwise_cosine_distance(features)
    assert math.isnan(first) and math.isnan(second) and 0 < third < 2


@pytest.mark.parametrize("shape", [(4, 5), (2, 1, 5)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="images >= 2"):
        pairwise_cosine_distance(np.zeros(shape))
