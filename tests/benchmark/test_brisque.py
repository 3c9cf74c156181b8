"""The detector of distortion: its statistics written out, its regression, what it rises with."""

from __future__ import annotations

import importlib.util
import io
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from PIL import Image

from benchmark import measurement
from benchmark.detectors.brisque import (
    FEATURES,
    Brisque,
    Regression,
    _fitted,
    features,
    load_regression,
)
from benchmark.errors import UsageError
from results import store
from results.detections import Picture
from tests.results.synthetic import Synthetic


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def textured(side: int = 40, seed: int = 0) -> Picture:
    """Noise smoothed by a sum of neighbours, of even sides."""
    levels = np.random.default_rng(seed).normal(128, 60, (side, side, 3))
    smooth = (levels + np.roll(levels, 1, 0) + np.roll(levels, 1, 1)) / 3
    return np.clip(smooth, 0, 255).astype(np.uint8)


def moments(values: list[float]) -> list[float]:
    """Shape, mean and variances of the paper's equations (8) to (14), a value at a time."""
    left = [v * v for v in values if v < 0]
    right = [v * v for v in values if v > 0]
    low, high = sum(left) / len(left), sum(right) / len(right)
    gamma = math.sqrt(low / high)
    r = (sum(map(abs, values)) / len(values)) ** 2 / (sum(v * v for v in values) / len(values))
    wanted = r * (gamma**3 + 1) * (gamma + 1) / (gamma**2 + 1) ** 2

    def rho(alpha: float) -> float:
        return math.gamma(2 / alpha) ** 2 / (math.gamma(1 / alpha) * math.gamma(3 / alpha))

    alpha = min((0.2 + 0.001 * n for n in range(9800)), key=lambda a: abs(rho(a) - wanted))
    scale = math.sqrt(math.gamma(1 / alpha) / math.gamma(3 / alpha))
    mean = (math.sqrt(high) - math.sqrt(low)) * math.gamma(2 / alpha) / math.gamma(1 / alpha)
    return [alpha, mean * scale, low, high]


def written_out(grey: list[list[float]]) -> list[float]:
    """The 18 statistics of one scale, pixel by pixel."""
    height, width = len(grey), len(grey[0])
    reach = range(-3, 4)
    weights = {
        (i, j): math.exp(-(i * i + j * j) / (2 * (7 / 6) ** 2)) for i in reach for j in reach
    }
    total = sum(weights.values())

    def at(i: int, j: int) -> float:
        return grey[min(max(i, 0), height - 1)][min(max(j, 0), width - 1)]

    def normalised(i: int, j: int) -> float:
        mean = sum(w * at(i + a, j + b) for (a, b), w in weights.items()) / total
        square = sum(w * at(i + a, j + b) ** 2 for (a, b), w in weights.items()) / total
        return (at(i, j) - mean) / (math.sqrt(abs(square - mean * mean)) + 1 / 255)

    field = {(i, j): normalised(i, j) for i in range(height) for j in range(width)}
    alpha, _, low, high = moments(list(field.values()))
    found = [alpha, (low + high) / 2]
    for a, b in ((0, 1), (1, 0), (1, 1), (-1, 1)):
        found += moments([v * field.get((i + a, j + b), 0.0) for (i, j), v in field.items()])
    return found


def half(grey: list[list[float]]) -> list[list[float]]:
    """Cubic convolution with a = -0.75 between each two pixels."""
    taps = (-0.09375, 0.59375, 0.59375, -0.09375)

    def row(line: list[float]) -> list[float]:
        last = len(line) - 1
        return [
            sum(t * line[min(max(2 * k - 1 + n, 0), last)] for n, t in enumerate(taps))
            for k in range(len(line) // 2)
        ]

    columns = list(zip(*(row(line) for line in grey), strict=True))
    return [list(line) for line in zip(*(row(list(c)) for c in columns), strict=True)]


def test_the_statistics_are_the_papers_written_out() -> None:
    picture = textured()
    grey = (np.asarray(Image.fromarray(picture).convert("L")) / 255).tolist()
    expected = written_out(grey) + written_out(half(grey))
    assert len(expected) == FEATURES
    np.testing.assert_allclose(features(picture), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("shape", [0.5, 1, 2, 4])
def test_the_shape_of_a_distribution_is_found(shape: float) -> None:
    # Left of zero twice as wide as right of it.
    values = scipy.stats.gennorm.rvs(shape, size=400_000, random_state=0)
    scale = math.gamma(1 / shape) / math.gamma(3 / shape)
    sides = np.where(np.arange(values.size) < values.size * 2 / 3, -2.0, 1.0)
    found, mean, low, high = _fitted(sides * np.abs(values) * math.sqrt(scale))
    assert found == pytest.approx(shape, rel=0.02)
    assert (low, high) == pytest.approx((4, 1), rel=0.03)
    wanted = -math.sqrt(scale) * math.gamma(2 / shape) / math.gamma(1 / shape)
    assert mean == pytest.approx(wanted, rel=0.03)


def test_a_regression_is_a_sum_of_radial_kernels() -> None:
    regression = Regression(
        lowest=np.zeros(2),
        highest=np.array([2.0, 4.0]),
        vectors=np.array([[0.0, 0.0], [1.0, -1.0]]),
        weights=np.array([3.0, -2.0]),
        gamma=0.5,
        offset=7.0,
    )
    # Scaled to (0, 1): squared distances 1 and 1 + 4.
    expected = 3 * math.exp(-0.5) - 2 * math.exp(-2.5) - 7
    assert regression.predict(np.array([1.0, 4.0])) == pytest.approx(expected)


def files(folder: Path, vectors: int = 2, columns: int = FEATURES) -> Path:
    """A regression in the files of the package."""
    rows = [
        f"{n + 1} " + " ".join(f"{k + 1}:{0.1 * n:g}" for k in range(columns))
        for n in range(vectors)
    ]
    head = "svm_type epsilon_svr\nkernel_type rbf\ngamma 0.05\nnr_class 2\ntotal_sv 2\nrho -3\n"
    (folder / "svm.txt").write_text(head + "SV\n" + " \n".join(rows) + " \n")
    ranges = {"min_": [0.5 * k for k in range(FEATURES)], "max_": [float(k + 9) for k in range(36)]}
    (folder / "normalize.pickle").write_bytes(pickle.dumps(ranges, protocol=4))
    return folder


def test_the_files_of_the_package_are_read(tmp_path: Path) -> None:
    regression = load_regression(files(tmp_path))
    assert (regression.gamma, regression.offset) == (0.05, -3)
    assert regression.weights.tolist() == [1, 2] and np.all(regression.vectors[1] == 0.1)
    assert regression.lowest[3] == 1.5 and regression.highest[3] == 12


class Harmful:
    """Unpickled, it makes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def test_no_file_is_unpickled_and_another_one_is_refused(tmp_path: Path) -> None:
    ranges, text = files(tmp_path) / "normalize.pickle", tmp_path / "svm.txt"
    whole, trace = text.read_text(), tmp_path / "trace"
    ranges.write_bytes(pickle.dumps({"min_": [0.5] * 36, "max_": Harmful(trace)}, protocol=4))
    with pytest.raises(ValueError, match="does not have the ranges of 36 features"):
        load_regression(tmp_path)
    assert not trace.exists()
    ranges.write_bytes(b"no pickle")
    with pytest.raises(ValueError, match="is no pickle"):
        load_regression(tmp_path)
    files(tmp_path, vectors=1)
    with pytest.raises(ValueError, match="no regression over 36 features"):
        load_regression(tmp_path)
    files(tmp_path, columns=35)
    with pytest.raises(ValueError, match="no regression over 36 features"):
        load_regression(tmp_path)
    for wrong in (whole.replace("rho -3\n", ""), whole.replace("1:0 ", "1:x "), "", "a b\nSV\n"):
        text.write_text(wrong)
        with pytest.raises(ValueError, match="is no regression that libsvm wrote"):
            load_regression(tmp_path)
    text.unlink()
    with pytest.raises(OSError):
        load_regression(tmp_path)


def jpeg(picture: Picture, quality: int) -> Picture:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream).convert("RGB"))


def noisy(picture: Picture, deviation: float) -> Picture:
    noise = np.random.default_rng(0).normal(0, deviation, picture.shape)
    return np.clip(picture + noise, 0, 255).round().astype(np.uint8)


def blurred(picture: Picture, deviation: float) -> Picture:
    smooth = scipy.ndimage.gaussian_filter(picture.astype(float), (deviation, deviation, 0))
    return np.clip(smooth, 0, 255).round().astype(np.uint8)


@needs("brisque", "skimage")
@pytest.mark.parametrize("name", ["chelsea", "coffee", "rocket", "astronaut"])
def test_photographs_get_worse_with_jpeg_noise_and_blur(name: str) -> None:
    from skimage import data

    picture = getattr(data, name)()
    (clean,) = (detector := Brisque()).values([picture])
    assert -10 < clean < 10
    for spoilt in (
        [jpeg(picture, quality) for quality in (50, 25, 10, 5)],
        [noisy(picture, deviation) for deviation in (10, 20, 40)],
        [blurred(picture, deviation) for deviation in (0.5, 1, 2)],
    ):
        values = [clean, *detector.values(spoilt)]
        assert values == sorted(values) and values[-1] > 50


@needs("brisque")
def test_the_ranges_of_the_package_are_those_of_its_regression() -> None:
    # Shapes were searched in steps of 0.001, so that unscaled they lie on that grid.
    regression = Brisque().regression
    assert regression.vectors.shape == (770, FEATURES)
    spans = (regression.highest - regression.lowest) / 2
    steps = ((regression.vectors + 1) * spans + regression.lowest)[:, [2, 6, 10, 14, 20, 24]] * 1000
    assert np.abs(steps - steps.round()).mean() < 0.02


@needs("brisque")
def test_pictures_without_texture_have_a_number(tmp_path: Path) -> None:
    plain = np.full((64, 64, 3), 128, np.uint8)
    dot = plain.copy()
    dot[30, 30] = 0
    detector = Brisque()
    values = detector.values([plain, dot, np.zeros((48, 64, 3), np.uint8)])
    assert np.isfinite(values).all() and min(values) > 100 and values[0] == values[2]
    assert detector.version.startswith("1 (brisque ")


@needs("brisque")
def test_a_run_is_measured(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path / "run", methods=("dag",), seeds=(0,)).write()
    for path in folder.rglob("samples/*.png"):
        Image.fromarray(textured(seed=len(path.parts[-1]))).save(path)
    measurement.measure("brisque", folder)
    record = store.read_run(folder).cells["dag--style--s0"].measures["brisque"]
    assert (record.unit, record.direction) == ("points", "lower")
    assert record.values[0].value == pytest.approx(Brisque().values([textured(seed=7)])[0])


def test_a_missing_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Brisque, "packages", ("no_such_package",))
    with pytest.raises(UsageError) as caught:
        measurement.measure("brisque", tmp_path)
    words = "brisque needs no_such_package; `pip install -e '.[brisque]'` installs it"
    assert str(caught.value) == words
