"""The detector of objects: the published layout, DETR written out, threshold, kinds, refusals."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmark import measurement
from benchmark.detectors.objects import CONFIDENCE, UNNAMED, WEIGHTS, Objects
from benchmark.errors import UsageError
from results import hacking, store
from results.detections import Picture
from results.measuring import measured_rows
from rewards import weights
from rewards.scorer import DamagedWeights
from rewards.weights import manifest
from tests.results.synthetic import Synthetic

f = torch.nn.functional
State = dict[str, Tensor]

WIDTH, HEADS, INNER, LAYERS, QUERIES = 16, 2, 32, 2, 24
BACKBONE = "test_resnet"
BACKBONE_PREFIX = "model.backbone.conv_encoder.model."
KINDS = [UNNAMED, "person", "cat", "dog", UNNAMED]


def backbone() -> Any:
    return timm.create_model(BACKBONE, pretrained=False, features_only=True).eval()


def drawn(random: torch.Generator, *shape: int, scale: float = 0.3) -> Tensor:
    return scale * torch.randn(*shape, generator=random)


def released_backbone(random: torch.Generator) -> State:
    state: State = {}
    for name, tensor in backbone().state_dict().items():
        if name.endswith("num_batches_tracked"):
            if "downsample" not in name:  # the release has these alone
                continue
            value = tensor
        elif tensor.dim() == 4:
            value = drawn(random, *tensor.shape, scale=1 / math.sqrt(tensor[0].numel()))
        elif name.endswith(("weight", "running_var")):
            value = 1 + drawn(random, *tensor.shape, scale=0.1).abs()
        else:
            value = drawn(random, *tensor.shape, scale=0.1)
        state[BACKBONE_PREFIX + name] = value
    return state


def released() -> State:
    """A small DETR under the names of the release."""
    random = torch.Generator().manual_seed(11)
    state = released_backbone(random)
    channels = backbone().feature_info.channels()[-1]
    state["model.input_projection.weight"] = drawn(random, WIDTH, channels, 1, 1, scale=1)
    state["model.input_projection.bias"] = drawn(random, WIDTH)
    state["model.query_position_embeddings.weight"] = drawn(random, QUERIES, WIDTH, scale=2)
    linear = {"class_labels_classifier": (len(KINDS) + 1, WIDTH)}
    linear |= {f"bbox_predictor.layers.{k}": (n, WIDTH) for k, n in enumerate((WIDTH, WIDTH, 4))}
    norms = ["model.decoder.layernorm"]
    for part, attentions in (("encoder", ["self"]), ("decoder", ["self", "encoder"])):
        for layer in (f"model.{part}.layers.{index}" for index in range(LAYERS)):
            for attention in (f"{layer}.{each}_attn" for each in attentions):
                linear |= {f"{attention}.{each}_proj": (WIDTH, WIDTH) for each in "kvq"}
                linear[f"{attention}.out_proj"] = WIDTH, WIDTH
                norms.append(f"{attention}_layer_norm")
            linear |= {f"{layer}.fc1": (INNER, WIDTH), f"{layer}.fc2": (WIDTH, INNER)}
            norms.append(f"{layer}.final_layer_norm")
    for name, shape in linear.items():
        # Attention has to be sharp and biases small, or every query finds the same.
        scale = 1.0 if name.endswith(("q_proj", "k_proj", "classifier")) else 0.4
        state[f"{name}.weight"] = drawn(random, *shape, scale=scale)
        state[f"{name}.bias"] = drawn(random, shape[0], scale=0.05)
    for name in norms:
        state[f"{name}.weight"] = 1 + drawn(random, WIDTH)
        state[f"{name}.bias"] = drawn(random, WIDTH, scale=0.05)
    return state


def write(folder: Path, state: State) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    whole = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})
    sizes = {
        f"{part}_{key}": value
        for part in ("encoder", "decoder")
        for key, value in (("layers", LAYERS), ("ffn_dim", INNER), ("attention_heads", HEADS))
    }
    config = {
        "architectures": ["DetrForObjectDetection"],
        "model_type": "detr",
        "activation_function": "relu",
        "backbone": BACKBONE,
        "use_timm_backbone": True,
        "use_pretrained_backbone": True,
        "dilation": False,
        "d_model": WIDTH,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "max_position_embeddings": 1024,
        "scale_embedding": False,
        "num_queries": QUERIES,
        "position_embedding_type": "sine",
        "id2label": {str(number): kind for number, kind in enumerate(KINDS)},
        "label2id": {kind: number for number, kind in enumerate(KINDS)},
        **sizes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def positions(height: int, width: int) -> Tensor:
    """Sines of where a cell lies, ``[height * width, WIDTH]``: rows first, then columns."""
    half = WIDTH // 2
    table = torch.zeros(height, width, WIDTH)
    for start, length, axis in ((0, height, 0), (half, width, 1)):
        where = torch.arange(1, length + 1) / (length + 1e-6) * 2 * math.pi
        for k in range(half):
            wave = (torch.sin, torch.cos)[k % 2](where / 10000 ** (2 * (k // 2) / half))
            table[:, :, start + k] = wave[:, None] if axis == 0 else wave[None, :]
    return table.flatten(0, 1)


def written_out(state: State, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Shares ``[queries, kinds + 1]`` and boxes (centre, sides) in shares of the picture."""

    def linear(x: Tensor, name: str) -> Tensor:
        return f.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return f.layer_norm(x, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)

    def attended(q: Tensor, k: Tensor, v: Tensor, name: str) -> Tensor:
        projected = [
            linear(x, f"{name}.{each}_proj").unflatten(1, (HEADS, -1)).transpose(0, 1)
            for x, each in ((q, "q"), (k, "k"), (v, "v"))
        ]
        scores = projected[0] @ projected[1].transpose(1, 2) / math.sqrt(WIDTH // HEADS)
        return linear(
            (scores.softmax(2) @ projected[2]).transpose(0, 1).flatten(1), f"{name}.out_proj"
        )

    def fed_forward(x: Tensor, layer: str) -> Tensor:
        inner = linear(linear(x, f"{layer}.fc1").relu(), f"{layer}.fc2")
        return norm(x + inner, f"{layer}.final_layer_norm")

    network = backbone()
    own = {
        name.removeprefix(BACKBONE_PREFIX): tensor
        for name, tensor in state.items()
        if name.startswith(BACKBONE_PREFIX)
    }
    told = network.load_state_dict(own, strict=False)
    assert not told.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in told.missing_keys)
    maps = f.conv2d(
        network(pixels)[-1],
        state["model.input_projection.weight"],
        state["model.input_projection.bias"],
    )
    places = positions(*maps.shape[2:])
    memory = maps[0].flatten(1).T
    for layer in (f"model.encoder.layers.{index}" for index in range(LAYERS)):
        placed = memory + places
        memory = memory + attended(placed, placed, memory, f"{layer}.self_attn")
        memory = fed_forward(norm(memory, f"{layer}.self_attn_layer_norm"), layer)
    queries = state["model.query_position_embeddings.weight"]
    x = torch.zeros(QUERIES, WIDTH)
    for layer in (f"model.decoder.layers.{index}" for index in range(LAYERS)):
        x = x + attended(x + queries, x + queries, x, f"{layer}.self_attn")
        x = norm(x, f"{layer}.self_attn_layer_norm")
        x = x + attended(x + queries, memory + places, memory, f"{layer}.encoder_attn")
        x = fed_forward(norm(x, f"{layer}.encoder_attn_layer_norm"), layer)
    x = norm(x, "model.decoder.layernorm")
    boxes = x
    for index in range(3):
        boxes = linear(boxes if index == 0 else boxes.relu(), f"bbox_predictor.layers.{index}")
    return linear(x, "class_labels_classifier").softmax(1), boxes.sigmoid()


def decided(state: State, pixels: Tensor) -> State:
    """With its shares apart: its queries agree on a kind otherwise."""
    logs = written_out(state, pixels)[0].log()
    steepness = 6.4 / (logs - logs.mean(0)).std()
    weight, bias = (f"class_labels_classifier.{each}" for each in ("weight", "bias"))
    return state | {
        weight: steepness * state[weight],
        bias: steepness * (state[bias] - logs.mean(0)),
    }


def pictures(count: int = 3) -> list[Picture]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (48, 64, 3)).astype(np.uint8) for _ in range(count)]


def prepared(picture: Picture) -> Tensor:
    """Its shorter side brought to 800, then ImageNet's mean and deviation."""
    height, width = picture.shape[:2]
    scale = 800 / min(height, width)
    size = int(width * scale), int(height * scale)
    resized = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
    levels = torch.from_numpy(resized.copy()).permute(2, 0, 1)[None].float() / 255
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (levels - mean[:, None, None]) / deviation[:, None, None]


@torch.no_grad()
def test_objects_are_those_of_the_formula(tmp_path: Path) -> None:
    state = decided(released(), prepared(pictures()[0]))
    detector = Objects(write(tmp_path, state))
    seen = {"unnamed": 0, "nothing": 0, "unsure": 0, "counted": 0}
    for picture in pictures():
        inputs = detector.processor(images=picture, return_tensors="pt")["pixel_values"]
        wanted = prepared(picture)
        assert inputs.shape == wanted.shape
        assert (inputs - wanted).abs().max() < 2.1 / 255 / 0.224  # it rounds twice
        shares, boxes = written_out(state, inputs)
        expected = []
        for query in range(QUERIES):
            best = int(shares[query, :-1].argmax())
            confidence = float(shares[query, best])
            assert abs(confidence - CONFIDENCE) > 1e-4  # none is a matter of rounding
            if confidence <= CONFIDENCE:
                seen["nothing" if shares[query, -1] > CONFIDENCE else "unsure"] += 1
            elif KINDS[best] == UNNAMED:
                seen["unnamed"] += 1
            else:
                seen["counted"] += 1
                x, y, w, h = boxes[query].tolist()
                corners = [64 * (x - w / 2), 48 * (y - h / 2), 64 * (x + w / 2), 48 * (y + h / 2)]
                expected.append((confidence, KINDS[best], corners))
        found = detector.objects(picture)
        expected.sort(key=lambda each: -each[0])
        assert [each.kind for each in found] == [kind for _, kind, _ in expected]
        for each, (confidence, _, corners) in zip(found, expected, strict=True):
            assert each.confidence == pytest.approx(confidence, abs=1e-4)
            assert each.box == pytest.approx(corners, abs=1e-2)
        assert detector.values([picture]) == [len(expected)]
    assert min(seen.values()) > 0, seen


@pytest.mark.slow
def test_the_whole_network_fills_the_released_file_to_the_byte(tmp_path: Path) -> None:
    from transformers import DetrConfig, DetrForObjectDetection

    # Numbers drawn at random: what is compared are names, shapes and kinds of numbers.
    config = DetrConfig(num_labels=91, backbone="resnet50", use_timm_backbone=True)
    DetrForObjectDetection(config).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    for stage in range(1, 5):
        name = f"{BACKBONE_PREFIX}layer{stage}.0.downsample.1.num_batches_tracked"
        state[name] = torch.tensor(0)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (released_file,) = [each for each in manifest()[WEIGHTS].files if "model" in each.name]
    assert (tmp_path / "model.safetensors").stat().st_size == released_file.bytes
    detector = Objects(tmp_path)
    assert sum(map(torch.numel, detector.detector.parameters())) == 41_524_768
    assert detector.processor.size["shortest_edge"] == 800


Change = Callable[[State], None]


def without_a_tensor(state: State) -> None:
    del state["model.decoder.layers.1.encoder_attn.q_proj.bias"]


def of_another_shape(state: State) -> None:
    state["class_labels_classifier.weight"] = torch.zeros(len(KINDS) + 2, WIDTH)


def with_one_more(state: State) -> None:
    state["mask_head.lay1.weight"] = torch.zeros(4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_a_tensor, r"model\.decoder\.layers\.1\.encoder_attn\.q_proj\.bias is missing"),
        (of_another_shape, r"class_labels_classifier\.weight has another shape"),
        (with_one_more, r"mask_head\.lay1\.weight does not belong to it"),
    ],
)
def test_another_set_of_tensors_is_refused(tmp_path: Path, change: Change, words: str) -> None:
    state = released()
    change(state)
    with pytest.raises(DamagedWeights, match=f"is no DETR: {words}") as caught:
        Objects(write(tmp_path, state))
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path, released())
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(DamagedWeights, match="is no DETR") as caught:
        Objects(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_and_other_weights_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(tmp_path / "none"))
    monkeypatch.setattr(weights.Weights, "path", lambda self, file: None)
    with pytest.raises(UsageError, match="167 MB, licence Apache-2.0") as caught:
        measurement.measure("objects", tmp_path)
    assert str(caught.value).endswith("`python -m benchmark fetch detr` fetches them")
    monkeypatch.undo()
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(tmp_path))
    write(tmp_path / WEIGHTS, released())
    run = Synthetic(tmp_path / "run", methods=("dag",)).write()
    with pytest.raises(UsageError, match="is not the released file of DETR"):
        measurement.measure("objects", run)


def test_a_run_is_measured_in_objects_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = write(tmp_path / "detr", released())
    monkeypatch.setattr(weights, "folder", lambda name: checkpoint)
    monkeypatch.setattr(Objects, "unavailable", classmethod(lambda cls: ""))
    folder = Synthetic(tmp_path / "run", methods=("dag",), seeds=(0,)).write()
    measurement.measure("objects", folder)
    run = store.read_run(folder)
    record = run.cells["dag--style--s0"].measures["objects"]
    assert (record.unit, record.direction) == ("objects a picture", "lower")
    (value,) = record.values
    assert value.value is not None
    assert (
        value.details["sum"] == value.value * value.details["images"] == round(value.details["sum"])
    )
    assert value.encoder == "DETR" and measured_rows(run, "objects")
    assert "objects, DETR" in [each.name for each in hacking.detectors(run)]
