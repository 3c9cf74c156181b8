"""Metrics against closed forms, against torchmetrics' numbers, and where they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from results import metrics
from results.metrics.fid import frechet_distance
from results.metrics.interface import REGISTERED, Metric, require_comparable
from results.metrics.kid import pair_products, paired_mmd, polynomial_kernel
from results.metrics.neighbours import distances
from results.metrics.vendi import vendi_score

Array = NDArray[np.float64]
NAMES = sorted(metrics.registry())


def random_features(seed: int, prompts: int = 6, images: int = 8, width: int = 12) -> Array:
    """Clusters around their prompts, of squared length about their width."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(prompts, 1, width))
    return centres + random.normal(0, 0.5, size=(prompts, images, width))


def collapsed(base: Array, spread: float = 1e-3) -> Array:
    """One picture a prompt, the mean of the base model's."""
    noise = np.random.default_rng(9).normal(0, spread, size=base.shape)
    return base.mean(axis=1, keepdims=True) + noise


def waves() -> tuple[Array, Array]:
    """Two samples ``[20, 6]`` that any program can write down."""
    i, j = np.arange(20)[:, None], np.arange(6)[None]
    return np.sin(1 + 0.7 * i * (j + 1)), np.cos(0.3 * i * (j + 2)) + 0.2


# What every metric keeps


@pytest.mark.parametrize("name", NAMES)
def test_declarations_are_whole(name: str) -> None:
    metric = metrics.load(name)
    for text in (metric.name, metric.version, metric.title, metric.unit, metric.source):
        assert text
    assert metric.name == name and metric.direction in ("higher", "lower", "neither")
    assert type(metric).__doc__


@pytest.mark.parametrize("name", [name for name in NAMES if name != "fid"])
def test_order_within_a_prompt_and_bits(name: str) -> None:
    features, base = random_features(1), random_features(2)
    before = features.copy(), base.copy()
    first = metrics.load(name).measure(features, base)
    assert metrics.load(name).measure(features, base) == first
    order = np.random.default_rng(0).permutation(8)
    shuffled = metrics.load(name).measure(features[:, order], base[:, order])
    assert shuffled.value == pytest.approx(first.value, abs=1e-9)
    assert (features == before[0]).all() and (base == before[1]).all()


@pytest.mark.parametrize("name", NAMES)
def test_pooled_images_are_refused(name: str) -> None:
    pooled = random_features(1).reshape(48, 12)
    with pytest.raises(metrics.Refused, match=r"\[prompts, images, width\].*not \[48, 12\]"):
        metrics.load(name).measure(pooled, pooled)


@pytest.mark.parametrize("name", NAMES)
def test_one_image_less_than_the_minimum_is_refused(name: str) -> None:
    metric = metrics.load(name)
    few = np.ones((1, metric.minimum - 1, 2)) if metric.minimum > 1 else np.ones((0, 1, 2))
    with pytest.raises(metrics.Refused, match=f"{name} needs"):
        metric.measure(few, few)


@pytest.mark.parametrize("name", NAMES)
def test_features_that_are_not_finite_give_no_number(name: str) -> None:
    features = np.zeros((2, 5000, 2)) + np.arange(5000)[:, None] + 1
    features = features if name == "fid" else features[:, :12]
    features[1, 3, 0] = math.nan
    measured = metrics.load(name).measure(features, np.ones_like(features))
    assert math.isnan(measured.value)


@pytest.mark.parametrize("name", [n for n in NAMES if metrics.registry()[n].needs_base])
def test_base_is_asked_for_and_must_fit(name: str) -> None:
    features = np.ones((2, 5000, 2))
    with pytest.raises(metrics.Refused, match="features of base"):
        metrics.load(name).measure(features)
    with pytest.raises(metrics.Refused, match="same prompts and images"):
        metrics.load(name).measure(features, np.ones((2, 5001, 2)))


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(metrics.UnknownMetric, match="'vendy'; did you mean 'vendi'"):
        metrics.load("vendy")


def test_a_metric_must_declare_all_and_have_a_name_of_its_own() -> None:
    class Silent(Metric):
        name = "silent"

    with pytest.raises(TypeError, match="does not declare version"):
        metrics.register(Silent)
    with pytest.raises(ValueError, match="'kid' is taken by results.metrics.kid"):
        metrics.register(metrics.registry()["kid"])
    assert "silent" not in REGISTERED


# Closed forms


def test_pairwise_distance_sees_the_collapse_that_pooling_hides() -> None:
    base = random_features(0, prompts=20)
    metric = metrics.load("pairwise_distance")
    assert metric.measure(collapsed(base)).value < 1e-4 < 0.1 < metric.measure(base).value
    separation = metrics.load("prompt_separation")
    kept = separation.measure(collapsed(base)).value / separation.measure(base).value
    assert kept > 0.9


@pytest.mark.parametrize("order", [1.0, 2.0, 0.5])
def test_vendi_of_equal_and_of_orthogonal_images(order: float) -> None:
    assert vendi_score(np.ones((5, 7)), order) == pytest.approx(1)
    assert vendi_score(np.eye(5, 7) * 3, order) == pytest.approx(5)
    assert math.isnan(vendi_score(np.zeros((5, 7)), order))


def test_vendi_of_two_images_and_of_order_two() -> None:
    cosine = 0.6
    pair = np.array([[1.0, 0.0], [cosine, math.sqrt(1 - cosine**2)]])
    p = np.array([(1 + cosine) / 2, (1 - cosine) / 2])
    assert vendi_score(pair) == pytest.approx(math.exp(-(p * np.log(p)).sum()))
    features = random_features(3)[0]
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    norm = np.linalg.norm(unit @ unit.T)
    assert vendi_score(features, 2.0) == pytest.approx(len(unit) ** 2 / norm**2)


def test_vendi_scores_of_different_numbers_of_images_do_not_compare() -> None:
    features = random_features(4, images=16)
    metric = metrics.load("vendi")
    of_16, of_4 = metric.measure(features), metric.measure(features[:, :4])
    assert of_16.value > of_4.value + 0.3  # the same distribution
    require_comparable("vendi", [of_16.conditions, of_16.conditions])
    with pytest.raises(metrics.Refused, match="images of each prompt 16.*prompt 4.*not compare"):
        require_comparable("vendi", [of_16.conditions, of_4.conditions])


def test_near_duplicates_of_base_and_of_a_collapse() -> None:
    base = random_features(5, prompts=10, images=16)
    metric = metrics.load("near_duplicates")
    assert metric.measure(base, base).value == pytest.approx(0.01, abs=1e-3)
    assert metric.measure(collapsed(base), base).value == 1
    with pytest.raises(metrics.Refused, match="at least 100 pairs .* not 36"):
        metric.measure(base[:6, :4], base[:6, :4])


def test_prompt_separation_is_the_mean_over_pairs_across_prompts() -> None:
    features = random_features(6, prompts=3, images=4)
    unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
    distances_ = [
        1 - unit[p, i] @ unit[q, j]
        for p in range(3)
        for q in range(p)
        for i in range(4)
        for j in range(4)
    ]
    measured = metrics.load("prompt_separation").measure(features).value
    assert measured == pytest.approx(np.mean(distances_))
    alike = np.tile(features[:1], (3, 1, 1))
    assert metrics.load("prompt_separation").measure(alike).value < measured / 2


def test_kernel_and_frechet_distance_are_those_of_torchmetrics() -> None:
    # torchmetrics 1.9.0: poly_mmd and _compute_fid of the same samples.
    x, y = waves()
    n = len(x)
    within = [polynomial_kernel(s, s) for s in (x, y)]
    unpaired = sum((k.sum() - np.trace(k)) / (n * (n - 1)) for k in within)
    unpaired -= 2 * polynomial_kernel(x, y).mean()
    assert unpaired == pytest.approx(-0.1345181678752163, rel=1e-10)
    assert frechet_distance(x, y) == pytest.approx(0.3943205368093814, rel=1e-8)


def test_kid_is_unbiased_for_images_that_share_their_noise() -> None:
    # y_i is near x_i, as after little training, and both are of one distribution.
    values, with_pairs = [], []
    for seed in range(400):
        random = np.random.default_rng(seed)
        noise = random.normal(size=(24, 8))
        x, y = (0.95 * noise + 0.3122 * random.normal(size=(24, 8)) for _ in range(2))
        values.append(paired_mmd(pair_products(x, y)))
        mixed = polynomial_kernel(x, y).mean()
        within = [polynomial_kernel(s, s) for s in (x, y)]
        unpaired = sum((k.sum() - np.trace(k)) / (24 * 23) for k in within) - 2 * mixed
        with_pairs.append(unpaired)
    error = np.std(values) / math.sqrt(len(values))
    assert abs(np.mean(values)) < 3 * error
    assert np.mean(with_pairs) < -20 * np.std(with_pairs) / math.sqrt(len(with_pairs))


def test_kid_of_a_shift_its_error_and_its_p_value() -> None:
    base = random_features(7)
    metric = metrics.load("kid")
    same = metric.measure(base, base)
    assert same.value == 0 and same.details["p_value"] == 1
    shifted = metric.measure(base + 0.6, base)
    assert shifted.value > 3 * shifted.details["standard_error"] > 0
    assert shifted.details["p_value"] == pytest.approx(0.001)
    other = metric.measure(random_features(7), base[:, ::-1])
    assert other.details["p_value"] > 0.05
    wider = metric.measure(1.5 * base - 0.5 * base.mean(axis=(0, 1)), base)
    assert wider.value > 0 and wider.details["p_value"] < 0.01  # with the same mean


def test_kid_of_a_point_against_another_is_the_closed_form() -> None:
    x, y = np.full((4, 4, 3), 1.0), np.full((4, 4, 3), 2.0)
    expected = (1 + 1) ** 3 + (4 + 1) ** 3 - 2 * (2 + 1) ** 3
    assert metrics.load("kid").measure(x, y).value == pytest.approx(expected)


def test_kid_of_unit_vectors_is_refused() -> None:
    features = random_features(8, width=200)
    unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
    with pytest.raises(metrics.Refused, match="as of unit vectors, its kernel compares means"):
        metrics.load("kid").measure(unit, unit)


def brute_force(name: str, x: Array, y: Array, k: int = 3) -> float:
    """The definition, image by image; ``y`` is base."""

    def radius(sample: Array, i: int) -> float:
        return sorted(float(np.linalg.norm(sample[i] - other)) for other in sample)[k]

    def near(a: Array, b: Array, i: int) -> bool:
        return bool(np.linalg.norm(a - b[i]) < radius(b, i))

    if name == "recall":
        return float(np.mean([any(near(point, x, i) for i in range(len(x))) for point in y]))
    counts = np.array([[near(point, y, i) for i in range(len(y))] for point in x])
    if name == "precision":
        return counts.any(axis=1).mean()
    return counts.any(axis=0).mean() if name == "coverage" else counts.sum(axis=1).mean() / k


@pytest.mark.parametrize("name", ["recall", "precision", "coverage", "density"])
def test_neighbourhoods_are_the_definition(name: str) -> None:
    x, y = random_features(10, prompts=4, images=5), random_features(11, prompts=4, images=5)
    y = 0.5 * x + 0.5 * y
    measured = metrics.load(name).measure(x, y).value
    expected = brute_force(name, x.reshape(20, 12), y.reshape(20, 12))
    assert measured == pytest.approx(expected)
    assert 0 < measured < 2


def test_lost_modes_are_seen_by_recall_and_coverage_alone() -> None:
    base = random_features(12)
    one_image = base[:, :1] + np.random.default_rng(0).normal(0, 1e-3, size=base.shape)
    values = {
        name: metrics.load(name).measure(one_image, base).value
        for name in ("recall", "precision", "coverage")
    }
    assert values["recall"] < 0.15 and values["coverage"] < 0.75 and values["precision"] == 1
    for name in ("recall", "coverage", "precision"):
        assert metrics.load(name).measure(base, base).value == 1


def test_distances_are_exact_between_equal_points() -> None:
    points = 1e3 + np.random.default_rng(0).normal(size=(5, 40))
    assert (np.diag(distances(points, points)) == 0).all()


def test_paired_distance() -> None:
    base = random_features(13)
    metric = metrics.load("paired_distance")
    assert metric.measure(base * 3, base).value == pytest.approx(0, abs=1e-12)
    assert metric.measure(-base, base).value == pytest.approx(2)


def test_fid_refuses_below_its_floor_and_computes_above() -> None:
    metric = metrics.load("fid")
    with pytest.raises(metrics.Refused, match="fid needs at least 10,000 images, not 48"):
        metric.measure(random_features(0), random_features(1))
    wide = np.broadcast_to(1.0, (1, 10_000, 10_001))
    with pytest.raises(metrics.Refused, match="more images than features"):
        metric.measure(wide, wide)
    x = np.random.default_rng(0).normal(size=(2, 5000, 3))
    value = metric.measure(2 * x + 1, x).value
    variance = np.var(x.reshape(-1, 3), axis=0, ddof=1).sum()
    means = np.square(x.mean(axis=(0, 1)) + 1).sum()
    # Of N(m, C) scaled by 2 and shifted by 1 along the same axes: |m + 1|^2 + tr C.
    assert value == pytest.approx(means + variance, rel=1e-6)
