"""Statistics of pictures that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from results.image_statistics import STATISTICS, image_statistics


def plain(colour: tuple[float, float, float], size: int = 16) -> np.ndarray:
    return np.broadcast_to(np.array(colour)[None, :, None, None], (1, 3, size, size)).copy()


def test_a_plain_picture() -> None:
    red = {name: float(v[0]) for name, v in image_statistics(plain((1.0, 0.0, 0.0))).items()}
    assert red == pytest.approx(
        {
            "brightness": 0.299,
            "contrast": 0,
            "saturation": 1,
            "sharpness": 0,
            "high_frequency": 0,
            "total_variation": 0,
            "noise_residual": 0,
            "flatness": 1,
            "border_variation": 0,
        },
        abs=1e-12,
    )
    assert set(red) == set(STATISTICS)


def test_a_checkerboard_and_stripes() -> None:
    board = np.indices((16, 16)).sum(axis=0) % 2
    pictures = np.broadcast_to(board.astype(float), (1, 3, 16, 16))
    found = {name: float(value[0]) for name, value in image_statistics(pictures).items()}
    assert found["brightness"] == found["contrast"] == pytest.approx(0.5)
    assert found["saturation"] == 0 and found["flatness"] == 0
    assert found["high_frequency"] == pytest.approx(1)
    assert found["total_variation"] == pytest.approx(2)
    assert found["sharpness"] == pytest.approx(16)  # the Laplacian is +4 and -4
    assert found["border_variation"] == pytest.approx(0.5)
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * np.arange(16) / 16)
    slow = image_statistics(np.broadcast_to(wave, (1, 3, 16, 16)))
    assert slow["high_frequency"][0] == pytest.approx(0, abs=1e-12)


def test_the_residual_is_noise_and_not_edges() -> None:
    edge = np.zeros((1, 3, 16, 16))
    edge[..., 8:] = 1
    assert image_statistics(edge)["noise_residual"][0] == 0
    assert image_statistics(edge)["total_variation"][0] == pytest.approx(1 / 15)
    specks = np.zeros((1, 3, 16, 16))
    specks[..., 4, 4] = specks[..., 10, 10] = 1
    assert image_statistics(specks)["noise_residual"][0] == pytest.approx(np.sqrt(2 / 256))


def test_the_middle_does_not_enter_the_border() -> None:
    picture = plain((0.2, 0.4, 0.6), 32)
    picture[:, :, 5:-5, 5:-5] = np.random.default_rng(0).uniform(size=(1, 3, 22, 22))
    assert image_statistics(picture)["border_variation"][0] == pytest.approx(0, abs=1e-7)


def test_each_picture_by_itself_and_not_finite_ones_without_a_number() -> None:
    pictures = np.random.default_rng(0).uniform(size=(3, 3, 12, 10))
    together = image_statistics(pictures)
    for name, values in together.items():
        assert values[1] == pytest.approx(image_statistics(pictures[1:2])[name][0])
    pictures[0, 1, 2, 3] = np.inf
    for name, values in image_statistics(pictures).items():
        assert np.isnan(values).tolist() == [True, False, False], name
