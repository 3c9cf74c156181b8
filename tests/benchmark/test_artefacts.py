"""The detector of artefacts on a tiny checkpoint of the release's format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark import measurement
from benchmark.detectors.artefacts import WEIGHTS, Artefacts
from benchmark.errors import UsageError
from results import hacking, store
from results.detections import Picture
from rewards import weights
from rewards.scorer import DamagedWeights
from tests.benchmark.artefact_checkpoints import (
    DECODED,
    DEPTHS,
    HEADS,
    PATCHES,
    REDUCED,
    SIZES,
    STRIDES,
    released,
    write,
)
from tests.how_we_know import Record
from tests.results.synthetic import Synthetic


class Written:
    """SegFormer's layers as functions of the tensors in the file."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def weights(self, name: str) -> tuple[Tensor, Tensor]:
        return self.state[f"{name}.weight"], self.state[f"{name}.bias"]

    def layer(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, *self.weights(name))

    def norm(self, name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], *self.weights(name), 1e-5)

    def attend(self, name: str, x: Tensor, side: int, index: int) -> Tensor:
        seen = x
        if REDUCED[index] > 1:
            seen = F.conv2d(grid(x, side), *self.weights(f"{name}.self.sr"), stride=REDUCED[index])
            seen = self.norm(f"{name}.self.layer_norm", tokens(seen))
        q, k, v = (
            self.layer(f"{name}.self.{part}", of).unflatten(1, (HEADS[index], -1)).transpose(0, 1)
            for part, of in (("query", x), ("key", seen), ("value", seen))
        )
        found = ((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v).transpose(0, 1).flatten(1)
        return self.layer(f"{name}.output.dense", found)

    def mix(self, name: str, x: Tensor, side: int) -> Tensor:
        x = grid(self.layer(f"{name}.dense1", x), side)
        x = F.conv2d(x, *self.weights(f"{name}.dwconv.dwconv"), padding=1, groups=x.shape[1])
        return self.layer(f"{name}.dense2", F.gelu(tokens(x)))

    def stages(self, image: Tensor) -> Iterator[Tensor]:
        for index in range(4):
            root = f"segformer.encoder.patch_embeddings.{index}"
            half = PATCHES[index] // 2
            image = F.conv2d(image, *self.weights(f"{root}.proj"), STRIDES[index], half)
            side, x = image.shape[-1], self.norm(f"{root}.layer_norm", tokens(image))
            for number in range(DEPTHS[index]):
                block = f"segformer.encoder.block.{index}.{number}"
                inner = self.norm(f"{block}.layer_norm_1", x)
                x = x + self.attend(f"{block}.attention", inner, side, index)
                x = x + self.mix(f"{block}.mlp", self.norm(f"{block}.layer_norm_2", x), side)
            image = grid(self.norm(f"segformer.encoder.layer_norm.{index}", x), side)
            yield grid(self.layer(f"decode_head.linear_c.{index}.proj", tokens(image)), side)

    def share(self, picture: Picture) -> float:
        """Of artefacts in a picture of 512 x 512."""
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        image = ((torch.tensor(picture) / 255 - mean) / std).permute(2, 0, 1)[None]
        found = [
            F.interpolate(each, size=(128, 128), mode="bilinear") for each in self.stages(image)
        ]
        fused = F.conv2d(
            torch.cat(found[::-1], dim=1), self.state["decode_head.linear_fuse.weight"]
        )
        norm = "decode_head.batch_norm"
        statistics = (self.state[f"{norm}.running_mean"], self.state[f"{norm}.running_var"])
        x = F.batch_norm(fused, *statistics, *self.weights(norm)).relu()
        logits = F.conv2d(x, *self.weights("decode_head.classifier"))
        return float(F.interpolate(logits, size=(512, 512), mode="bilinear").sigmoid().mean())


def tokens(image: Tensor) -> Tensor:
    return image[0].flatten(1).T


def grid(x: Tensor, side: int) -> Tensor:
    return x.T.unflatten(1, (side, side))[None]


def pictures(side: int, count: int = 2) -> list[Picture]:
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (count, 8, 8, 3))
    smooth = np.kron(coarse, np.ones((1, side // 8, side // 8, 1)))
    noise = random.integers(-40, 40, smooth.shape)
    return list(np.clip(smooth + noise, 0, 255).astype(np.uint8))


def test_the_share_is_that_of_the_network_written_out(tmp_path: Path, evidence: Record) -> None:
    state = released()
    detector = Artefacts(write(tmp_path, state), SIZES)
    shown = pictures(512)
    written = [Written(state).share(each) for each in shown]
    found = detector.values(shown)
    assert abs(written[0] - written[1]) > 1e-4 and all(0.01 < each < 0.99 for each in written)
    evidence(
        "the detector of artefacts is its network written out",
        float(np.abs(np.subtract(found, written)).max()),
        1e-5,
        "mean probability of a pixel, layers written out on the tensors of the file",
    )


def test_pictures_of_any_size_are_brought_to_one(tmp_path: Path) -> None:
    """Between pixels as OpenCV's linear resizing does: the middle of two, rounded to 8 bits."""
    state = released()
    detector = Artefacts(write(tmp_path, state), SIZES)
    (small,) = pictures(64, 1)
    positions = (np.arange(512) + 0.5) / 8 - 0.5
    low = np.clip(np.floor(positions), 0, 63).astype(int)
    share = np.clip(positions, 0, 63) - low
    high = np.minimum(low + 1, 63)
    rows = small[low] * (1 - share)[:, None, None] + small[high] * share[:, None, None]
    both = rows[:, low] * (1 - share)[:, None] + rows[:, high] * share[:, None]
    (found,) = detector.values([small])
    assert found == pytest.approx(Written(state).share(both.round().astype(np.uint8)), abs=1e-4)
    assert detector.probabilities(pictures(64, 1)[0][:40]).shape == (512, 512)


def test_a_higher_logit_is_more_of_an_artefact(tmp_path: Path) -> None:
    shares = []
    for bias in (-3.0, 0.0, 3.0):
        state = released() | {"decode_head.classifier.bias": torch.tensor([bias])}
        shares += Artefacts(write(tmp_path / str(bias), state), SIZES).values(pictures(64, 1))
    assert shares == sorted(shares) and shares[2] - shares[0] > 0.3


def _missing(state: dict[str, Tensor]) -> None:
    del state["segformer.encoder.block.2.0.attention.self.sr.weight"]


def _surplus(state: dict[str, Tensor]) -> None:
    state["decode_head.extra"] = torch.zeros(1)


def _of_two_labels(state: dict[str, Tensor]) -> None:
    state["decode_head.classifier.weight"] = torch.zeros(2, DECODED, 1, 1)


@pytest.mark.parametrize("spoil", [_missing, _surplus, _of_two_labels])
def test_another_network_is_refused(spoil: Any, tmp_path: Path) -> None:
    state = released()
    spoil(state)
    with pytest.raises(DamagedWeights, match="is no artefact detector: ") as caught:
        Artefacts(write(tmp_path, state), SIZES)
    assert "\n" not in str(caught.value)


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("code ran",)


def test_a_file_of_torch_runs_no_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, {"decode_head.extra": Payload()})  # type: ignore[dict-item]
    for content in (None, b"damaged"):
        if content:
            path.write_bytes(content)
        with pytest.raises(DamagedWeights, match="is no artefact detector: "):
            Artefacts(path, SIZES)
    assert "code ran" not in capsys.readouterr().out


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is here, whatever the machine has."""
    monkeypatch.delenv(weights.FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path


def test_what_is_missing_is_one_line(elsewhere: Path) -> None:
    with pytest.raises(UsageError, match="339 MB, licence MIT; begun from MiT-B5") as caught:
        measurement.measure("artefacts", elsewhere)
    assert str(caught.value).endswith("`python -m benchmark fetch diffdoctor` fetches them")


def test_another_file_than_the_released_one_is_refused(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(elsewhere))
    write(elsewhere / WEIGHTS, released())
    assert not Artefacts.unavailable()
    run = Synthetic(elsewhere / "run", methods=("dag",)).write()
    with pytest.raises(UsageError, match="is not the released file of DiffDoctor's artefact"):
        measurement.measure("artefacts", run)


def test_what_it_finds_is_a_sign(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(elsewhere, released())
    monkeypatch.setattr(Artefacts, "unavailable", classmethod(lambda cls: ""))
    monkeypatch.setattr(weights, "only_path", lambda name: path)
    monkeypatch.setattr(Artefacts.__init__, "__defaults__", (None, SIZES))
    folder = Synthetic(elsewhere / "run", methods=("dag",), seeds=(0, 1)).write()
    measurement.measure("artefacts", folder)
    run = store.read_run(folder)
    record = run.cells["dag--style--s0"].measures["artefacts"]
    assert record.version == f"1 ({weights.tag(path)})" and record.unit == "share of pixels"
    (row,) = [row for row in hacking.hacking_rows(run) if row.task == "style"]
    assert row.signs["artefacts, DiffDoctor SegFormer-B5"].detector.shows == Artefacts.sign_of
