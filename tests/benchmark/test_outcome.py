"""What can be done with a trained cell: draw from it, load it elsewhere, upload it."""

from __future__ import annotations

import base64
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from benchmark.model_card import base_model
from diffusion.latent_diffusion import LatentDiffusion
from diffusion.ledger import Ledger
from diffusion.pipelines import load_policy
from results import store
from results.records import CellConfig
from tests.benchmark.conftest import (
    Command,
    one_line_error,
    run_command,
    write_suite,
)

CELL = "ddpo--colourfulness--s0"
PROMPTS = ["--prompt", "a fox", "--prompt", "an owl"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A run of one method on one reward."""
    folder = tmp_path_factory.mktemp("outcome")
    suite = write_suite(folder, tiny_model)
    done = run_command(
        folder, "run", "--suite", suite, "--rewards", "colourfulness", "--out", "run"
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return folder / "run"


@pytest.fixture
def cell(run: Path) -> Path:
    return store.cell_folder(run, CELL)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_pictures_of_a_cell_are_its_own(
    run: Path, cell: Path, benchmark_command: Command, tmp_path: Path
) -> None:
    done = benchmark_command("sample", cell, *PROMPTS, "--count", 2, "--out", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    names = ["0-0", "0-1", "1-0", "1-1"]
    written = [tmp_path / "a" / CELL / f"{name}.png" for name in names]
    assert done.stdout.split() == [str(path) for path in written]
    pictures = [pixels(path) for path in written]
    assert pictures[0].shape == (64, 64, 3)
    assert len({picture.tobytes() for picture in pictures}) == 4
    base = store.cell_folder(run, "base--none--s0")
    for where, out in ((run, "b"), (base, "c")):
        done = benchmark_command("sample", where, *PROMPTS[:2], "--out", tmp_path / out)
        assert done.returncode == 0, done.stderr
    again = pixels(tmp_path / "b" / CELL / "0-0.png")
    untrained = pixels(tmp_path / "c" / base.name / "0-0.png")
    assert [path.name for path in (tmp_path / "b").iterdir()] == [CELL]
    # How many are drawn at a time changes rounding at most.
    assert np.abs(again.astype(int) - pictures[0]).max() <= 1, "fewer at a time are other ones"
    assert (untrained != pictures[0]).any()
    done = benchmark_command(
        "sample", cell, "--prompt", "a fox", "--seed", 1, "--out", tmp_path / "d"
    )
    assert (pixels(tmp_path / "d" / CELL / "0-0.png") != pictures[0]).any()


def test_what_cannot_be_drawn_is_one_line(
    run: Path, cell: Path, benchmark_command: Command, tmp_path: Path
) -> None:
    best = store.cell_folder(run, "best-of-n--colourfulness--s0")
    for where, words, code in (
        (tmp_path / "nowhere", "no run and no cell", 3),
        (best, "no trained weights", 3),
        (cell, "a prompt is empty", 4),
        (cell, "is there already", 4),
    ):
        out = tmp_path / "pictures" / CELL
        out.mkdir(parents=True, exist_ok=True)
        (out / "0-0.png").write_bytes(b"mine")
        prompt = " " if "empty" in words else "a fox"
        done = benchmark_command("sample", where, "--prompt", prompt)
        assert words in one_line_error(done, code)
        assert (out / "0-0.png").read_bytes() == b"mine"
    damaged = tmp_path / CELL
    shutil.copytree(cell, damaged)
    weights = damaged / "lora" / "pytorch_lora_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    done = benchmark_command("sample", damaged, "--prompt", "a fox", "--out", tmp_path / "x")
    assert "weights cannot be loaded" in one_line_error(done, 4)


def test_the_card_says_what_the_weights_are(cell: Path, tiny_model: Path) -> None:
    card = (cell / "lora" / "README.md").read_text(encoding="utf-8")
    _, header, body = card.split("---\n", 2)
    assert yaml.safe_load(header)["library_name"] == "diffusers"
    config = store.read_json(cell / "config.json", CellConfig)
    picked = store.read_cell(cell.parents[1], CELL).picked
    values = [value for prompt in picked.rewards["colourfulness"] for value in prompt]
    for text in (
        "| method | `ddpo` |",
        "| reward | `colourfulness` |",
        "| budget | 8 training images |",
        f"| protocol | `{config.protocol}` |",
        f"| checkpoint | round {picked.round}, rule `best-on-validation` |",
        f"| `colourfulness` | {np.mean(values):.4g} |",
        "- `learning_rate`: 0.003",
        "load_lora_weights",
        "DDIM, sampling_steps 3, guidance_scale 2.0, eta 1.0, dtype float32",
    ):
        assert text in body, text
    assert str(tiny_model) not in card and tiny_model.name in card


def test_the_code_of_the_card_works(cell: Path, tiny_model: Path) -> None:
    card = (cell / "lora" / "README.md").read_text(encoding="utf-8")
    code = card.partition("```python\n")[2].partition("```")[0]
    code = code.replace("THIS FOLDER", str(cell / "lora"))
    names: dict[str, Any] = {}
    exec(code.replace(f"PATH OF {tiny_model.name}", str(tiny_model)), names)  # the card's own code
    assert names["image"].size == (64, 64)
    assert names["pipeline"].get_list_adapters()["unet"]


def test_a_card_names_a_base_model_of_the_hub(cell: Path) -> None:
    config = store.read_json(cell / "config.json", CellConfig)
    for name in ("someone/some-model", "emoji", "sd15-random"):
        other = config.model_copy(update={"model": {**config.model, "name": name}})
        assert base_model(other) == name


@pytest.mark.parametrize("trainable", ["lora", "full"])
def test_saved_weights_load(tiny_model: Path, tmp_path: Path, trainable: str) -> None:
    def make(seed: int) -> LatentDiffusion:
        settings: dict[str, Any] = {"seed": seed, "sampling_steps": 2, "trainable": trainable}
        return load_policy(str(tiny_model), ledger=Ledger(), **settings)

    source = make(0)
    source.load_state_dict({n: torch.randn(v.shape) for n, v in source.state_dict().items()})
    source.save_weights(tmp_path / "weights")
    target = make(1)
    target.load_weights(tmp_path / "weights")
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value)
    with pytest.raises(OSError):
        target.load_weights(tmp_path / "nowhere")


class Hub(BaseHTTPRequestHandler):
    """As much of a model hub as an upload of small files needs."""

    files: dict[str, bytes] = {}
    made: list[dict] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        root = f"http://{self.headers['Host']}"
        if self.path == "/api/repos/create":
            self.made.append(json.loads(body))
            self._answer({"url": f"{root}/someone/fox"})
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            names = [each["path"] for each in json.loads(body)["files"]]
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            self._answer({"files": [{"path": name, **modes} for name in names]})
        elif "/commit/" in self.path:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    value = entry["value"]
                    self.files[value["path"]] = base64.b64decode(value["content"])
            url = f"{root}/someone/fox/commit/1234"
            self._answer({"commitUrl": url, "commitOid": "1234", "success": True})
        else:
            self.send_error(404)

    def do_GET(self) -> None:
        self._answer({"id": "someone/fox", "sha": "0" * 40, "siblings": []})

    def _answer(self, content: dict) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_push_uploads_weights_and_card_when_asked(
    cell: Path, hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"HF_ENDPOINT": hub, "HF_TOKEN": "hf_test", "HF_HOME": str(tmp_path / "home")}
    settings |= {"NO_PROXY": "*", "HF_HUB_OFFLINE": "0"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    done = run_command(tmp_path, "push", cell, "someone/fox", "--private")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub}/someone/fox/commit/1234"
    assert Hub.made[0]["name"] == "fox" and Hub.made[0]["visibility"] == "private"
    assert Hub.files == {path.name: path.read_bytes() for path in (cell / "lora").iterdir()}
    assert "README.md" in Hub.files


def test_push_without_a_hub_or_weights_is_one_line(
    run: Path, cell: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = run_command(tmp_path, "push", cell, "someone/fox")
    assert "someone/fox cannot be pushed to" in one_line_error(done, 4)
    base = store.cell_folder(run, "base--none--s0")
    assert "no trained weights" in one_line_error(run_command(tmp_path, "push", base, "a/b"), 3)


def test_the_commands_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
    for name in ("sample", "push"):
        assert f"\n## {name}\n" in page
    assert "`--tracker NAME`" in page
