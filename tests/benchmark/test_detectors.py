"""Detectors of writing, faces and unsafe content, and what a run's measure by one becomes."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import save_file

from benchmark import detectors, measurement
from benchmark.detectors import Detector
from benchmark.detectors.class_entropy import ClassEntropy
from benchmark.detectors.unsafe import WEIGHTS, Unsafe
from benchmark.errors import NothingToReport, UsageError
from results import hacking, store
from results.detections import Picture
from results.measuring import measured_rows
from rewards import conse, weights
from rewards.scorer import DamagedWeights
from tests.results.synthetic import Synthetic

CELL = "dag--style--s0"


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


class Dark(Detector):
    """A detector whose answer can be read off the picture."""

    name, version, title, network = "dark", "7", "Darkness", "mean"
    sign_of, source = "lights put out", "this test"

    def values(self, pictures: Sequence[Picture]) -> list[float]:
        return [float(picture.mean() < 20) for picture in pictures]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run in which ``dag`` puts the lights out in most pictures of its first prompt."""
    monkeypatch.setattr(detectors, "registry", lambda: {"dark": Dark})
    folder = Synthetic(tmp_path / "run", methods=("dag",), seeds=(0, 1, 2)).write()
    for seed in range(3):
        for image in range(3):
            path = store.sample_path(store.cell_folder(folder, f"dag--style--s{seed}"), 0, image)
            Image.new("RGB", (8, 8), (5, seed, 0)).save(path)
    return folder


def test_what_was_found_is_a_measure_and_a_sign(folder: Path) -> None:
    measurement.measure("dark", folder)
    run = store.read_run(folder)
    record = run.cells[CELL].measures["dark"]
    assert (record.version, record.unit, record.sign_of) == ("7", "share of images", Dark.sign_of)
    (value,) = record.values
    before = run.cells["base--none--s0"].measures["dark"].values[0].per_prompt
    assert value.per_prompt == [0.75, *before[1:]]
    assert value.round == run.cells[CELL].picked.round and value.encoder == "mean"
    assert value.details == {"images": 16, "sum": 16 * np.mean(value.per_prompt)}
    rows = {(row.method, row.task): row for row in measured_rows(run, "dark")}
    change = rows["dag", "style"].change
    assert change is not None and change.mean == pytest.approx((0.75 - before[0]) / 4)
    (row,) = [row for row in hacking.hacking_rows(run) if row.task == "style"]
    assert row.signs["darkness, mean"].fires and "darkness, mean" in row.suspected
    assert row.signs["darkness, mean"].detector.shows == Dark.sign_of


def test_a_run_that_was_not_looked_at_has_no_such_sign(folder: Path) -> None:
    assert "darkness, mean" not in [each.name for each in hacking.detectors(store.read_run(folder))]


def test_cells_without_all_their_pictures_are_left_out(folder: Path) -> None:
    store.sample_path(store.cell_folder(folder, CELL), 1, 0).unlink()
    measurement.measure("dark", folder)
    cells = store.read_run(folder).cells
    assert "dark" not in cells[CELL].measures and "dark" in cells["dag--style--s1"].measures
    for path in folder.rglob("samples/0-0.png"):
        path.unlink()
    with pytest.raises(NothingToReport, match="no cell is done and has its pictures"):
        measurement.measure("dark", folder)


def test_a_damaged_picture_is_one_line(folder: Path) -> None:
    path = store.sample_path(store.cell_folder(folder, CELL), 0, 0)
    path.write_bytes(b"no picture")
    with pytest.raises(NothingToReport, match="0-0.png: cannot be read as a picture"):
        measurement.measure("dark", folder)


def test_a_missing_package_is_named_with_its_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dark, "packages", ("no_such_package",))
    monkeypatch.setattr(Dark, "extra", "dark")
    with pytest.raises(UsageError) as caught:
        measurement.measure("dark", folder)
    words = "dark needs no_such_package; `pip install -e '.[dark]'` installs it"
    assert str(caught.value) == words
    assert not list(folder.rglob("measures/dark.json"))


def test_missing_weights_are_named_with_their_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights.Weights, "path", lambda self, file: None)
    with pytest.raises(UsageError, match="1.22 GB, licence CreativeML Open RAIL-M") as caught:
        measurement.measure("unsafe", tmp_path)
    assert str(caught.value).endswith("`python -m benchmark fetch safety-checker` fetches them")


def test_declarations_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detectors, "_REGISTERED", {})
    detectors.register(Dark)
    with pytest.raises(ValueError, match="'dark' is taken"):
        detectors.register(Dark)
    with pytest.raises(TypeError, match="does not declare name, version"):
        detectors.register(type("Empty", (Detector,), {}))


def test_a_classifier_is_at_a_loss_with_noise_and_not_with_what_it_knows() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    plain = np.full((64, 64, 3), 128, np.uint8)
    network = ClassEntropy()
    values = network.values([noise, plain, recognised(network)])
    assert all(0 <= value <= np.log(1000) for value in values)
    assert values[2] < 0.1 < 1 < min(values[:2])


def recognised(network: ClassEntropy) -> Picture:
    """A picture that the classifier is sure of, found by gradients from grey."""
    start = torch.full((1, 3, 224, 224), 0.5, requires_grad=True)
    optimizer = torch.optim.Adam([start], lr=0.05)
    for _ in range(20):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            network.classify(start.clamp(0, 1)), torch.tensor([281])
        )
        loss.backward()
        optimizer.step()
    levels = (start.detach().clamp(0, 1)[0] * 255).round().to(torch.uint8)
    return levels.movedim(0, -1).numpy()


def test_the_entropy_is_that_of_the_probabilities_written_out() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (50, 70, 3)).astype(np.uint8)
    network = ClassEntropy()
    prepared = conse.PREPARED.reference(torch.tensor(picture).movedim(-1, 0)[None] / 255)
    shares = conse.load_classifier(torch.device("cpu"))(prepared)[0].double().softmax(0).numpy()
    (value,) = network.values([picture])
    assert value == pytest.approx(scipy.stats.entropy(shares), rel=1e-5)


def drawn(text: str, size: int = 64, height: int = 12) -> Picture:
    """An orange disc on blue with words above it."""
    picture = Image.new("RGB", (size, size), (120, 170, 220))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((size * 0.2, size * 0.3, size * 0.8, size * 0.95), fill=(230, 160, 60))
    font = ImageFont.load_default(height)
    draw.text((size * 0.06, size * 0.05), text, fill=(20, 20, 20), font=font)
    return np.asarray(picture)


@needs("rapidocr", "onnxruntime")
def test_words_are_read_and_shapes_are_not() -> None:
    from benchmark.detectors.text import Text

    text = Text()
    words = [drawn("a lion"), drawn("six cats"), drawn("tiger", 128, 24), drawn("12 dogs", 512, 60)]
    assert text.values(words) == [True] * 4
    plain = [drawn(""), drawn("", 128), drawn("", 512), np.zeros((64, 48, 3), np.uint8)]
    assert text.values(plain) == [False] * 4
    assert "a lion" in [line for line, _ in text.lines(words[0])]
    assert text.version.startswith("1 (rapidocr ")


@needs("rapidocr", "onnxruntime", "skimage")
def test_photographs_without_writing_have_none() -> None:
    from skimage import data

    from benchmark.detectors.text import Text

    pictures = [getattr(data, name)() for name in ("chelsea", "coffee", "rocket")]
    assert Text().values([*pictures, data.page()[:, :, None].repeat(3, 2)]) == [False] * 3 + [True]


@needs("dlib", "skimage")
def test_faces_of_people_are_found_and_other_things_are_not() -> None:
    from skimage import data

    from benchmark.detectors.faces import Faces

    faces = Faces()
    others = [getattr(data, name)() for name in ("chelsea", "coffee", "rocket")]
    assert faces.values([data.astronaut(), *others]) == [True, False, False, False]
    cut = data.lfw_subset()  # 100 faces of people, then 100 pieces without one, of 25 x 25
    found = np.array(faces.values([framed(each) for each in cut]))
    assert found[:100].mean() >= 0.85 and found[100:].mean() <= 0.02
    assert faces.version.startswith("1 (dlib ")


def framed(piece: np.ndarray) -> Picture:
    """A grey piece ``[25, 25]`` enlarged four times, on grey."""
    canvas = Image.new("RGB", (200, 200), (128, 128, 128))
    levels = Image.fromarray((piece * 255).astype(np.uint8))
    canvas.paste(levels.resize((100, 100), Image.Resampling.BICUBIC), (50, 50))
    return np.asarray(canvas)


WIDTH, LAYERS, PROJECTED, INNER, SIDE, PATCH = 32, 2, 16, 64, 28, 14


def checkpoint(folder: Path, threshold: float) -> dict[str, torch.Tensor]:
    """A small safety checker in the files and under the names of the release."""
    random = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return 0.2 * torch.randn(*shape, generator=random)

    tower = "vision_model.vision_model."
    state = {
        f"{tower}embeddings.class_embedding": drawn(WIDTH),
        f"{tower}embeddings.position_ids": torch.arange(5)[None],
        f"{tower}embeddings.patch_embedding.weight": drawn(WIDTH, 3, PATCH, PATCH),
        f"{tower}embeddings.position_embedding.weight": drawn(5, WIDTH),
        "visual_projection.weight": drawn(PROJECTED, WIDTH),
        "concept_embeds": drawn(17, PROJECTED),
        "concept_embeds_weights": torch.full((17,), threshold),
        "special_care_embeds": drawn(3, PROJECTED),
        "special_care_embeds_weights": torch.full((3,), 2.0),
    }
    shapes = {f"self_attn.{name}_proj": (WIDTH, WIDTH) for name in ("k", "v", "q", "out")}
    shapes |= {"mlp.fc1": (INNER, WIDTH), "mlp.fc2": (WIDTH, INNER)}
    norms = [f"{tower}pre_layrnorm", f"{tower}post_layernorm"]
    for layer in (f"{tower}encoder.layers.{index}." for index in range(LAYERS)):
        norms += [f"{layer}layer_norm1", f"{layer}layer_norm2"]
        for name, (rows, columns) in shapes.items():
            state[f"{layer}{name}.weight"] = drawn(rows, columns)
            state[f"{layer}{name}.bias"] = drawn(rows)
    for norm in norms:
        state |= {f"{norm}.weight": 1 + drawn(WIDTH), f"{norm}.bias": drawn(WIDTH)}
    write(folder, state)
    return state


def write(folder: Path, state: dict[str, torch.Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    tower = {"hidden_size": WIDTH, "intermediate_size": INNER, "num_attention_heads": 2}
    config: dict[str, Any] = {
        "architectures": ["StableDiffusionSafetyChecker"],
        "model_type": "clip",
        "projection_dim": PROJECTED,
        "text_config": {"model_type": "clip_text_model", **tower, "num_hidden_layers": 1},
        "vision_config": {
            "model_type": "clip_vision_model",
            **tower,
            "num_hidden_layers": LAYERS,
            "image_size": SIDE,
            "patch_size": PATCH,
        },
    }
    (folder / "config.json").write_text(json.dumps(config))


def highest_cosine(state: dict[str, torch.Tensor], picture: Picture) -> float:
    """Of a picture of 28 x 28 with any concept, the tower written out."""
    f = torch.nn.functional
    tower = "vision_model.vision_model."
    names = {k.removeprefix(tower): v for k, v in state.items()}

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return f.layer_norm(x, (WIDTH,), names[f"{name}.weight"], names[f"{name}.bias"], 1e-5)

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return f.linear(x, names[f"{name}.weight"], names[f"{name}.bias"])

    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    pixels = ((torch.tensor(picture) / 255 - mean) / std).permute(2, 0, 1)[None]
    patches = f.conv2d(pixels, names["embeddings.patch_embedding.weight"], stride=PATCH)
    tokens = torch.cat([names["embeddings.class_embedding"][None], patches[0].flatten(1).T])
    x = norm(tokens + names["embeddings.position_embedding.weight"], "pre_layrnorm")
    for index in range(LAYERS):
        layer = f"encoder.layers.{index}."
        inner = norm(x, f"{layer}layer_norm1")
        q, k, v = (
            linear(inner, f"{layer}self_attn.{name}_proj").unflatten(1, (2, -1)).transpose(0, 1)
            for name in "qkv"
        )
        attended = f.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1)
        x = x + linear(attended, f"{layer}self_attn.out_proj")
        inner = linear(norm(x, f"{layer}layer_norm2"), f"{layer}mlp.fc1")
        x = x + linear(inner * torch.sigmoid(1.702 * inner), f"{layer}mlp.fc2")
    embedding = names["visual_projection.weight"] @ norm(x[0], "post_layernorm")
    return float(f.cosine_similarity(embedding[None], names["concept_embeds"]).max())


def test_the_safety_checker_flags_what_its_formula_does(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    base = random.integers(0, 256, (8, 1, 1, 3))
    pictures = np.clip(base + random.integers(-90, 90, (8, SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
    state = checkpoint(tmp_path / "a", threshold=0.5)
    cosines = [highest_cosine(state, picture) for picture in pictures]
    low, high = sorted(cosines)[3:5]
    assert high - low > 2e-3  # it rounds to three decimals
    checkpoint(tmp_path / "b", threshold=(low + high) / 2)
    flags = Unsafe(tmp_path / "b").values(list(pictures))
    assert flags == [cosine > (low + high) / 2 for cosine in cosines] and sum(flags) == 4
    assert all(each.std() > 0 for each in pictures)  # nothing is blackened


def test_a_checkpoint_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    state = checkpoint(tmp_path, threshold=0.5)
    del state["concept_embeds"]
    write(tmp_path, state)
    with pytest.raises(DamagedWeights, match="is no safety checker: concept_embeds"):
        Unsafe(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(DamagedWeights, match="is no safety checker"):
        Unsafe(tmp_path)


def test_another_file_than_the_released_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(tmp_path))
    checkpoint(tmp_path / WEIGHTS / "safety_checker", threshold=0.5)
    assert not Unsafe.unavailable()
    run = Synthetic(tmp_path / "run", methods=("dag",)).write()
    with pytest.raises(UsageError, match="is not the released file of Stable Diffusion's safety"):
        measurement.measure("unsafe", run)
