"""``benchmark fetch`` against a hub of this machine, and without one."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from rewards import weights
from tests.benchmark.conftest import Command, environment, one_line_error

CONTENT = b"weights of nothing" * 100
DIGEST = hashlib.sha256(CONTENT).hexdigest()
SCRIPT = f"""
import sys
from benchmark import cli, encoders
from rewards.weights import WeightFile, Weights, manifest

for name, digest in (("pinned", "{DIGEST}"), ("stated", ""), ("other", "{"0" * 64}")):
    file = WeightFile("a.bin", {len(CONTENT)}, digest)
    manifest()[name] = Weights(name, f"The {{name}} one", f"owner/{{name}}", "MIT", (file,))
manifest()["absent"] = Weights("absent", "Not there", "owner/absent", "MIT", (file,))
file = WeightFile("a.bin", {len(CONTENT)}, "{DIGEST}")
encoders.networks()["seen"] = Weights("seen", "Of an encoder", "owner/seen", "MIT", (file,))
for name in sys.argv[1:]:
    try:
        cli.main(["fetch", name])
    except SystemExit as end:
        print("code", end.code, flush=True)
    if name == "seen":
        print("folder", encoders.hub_folder("mine", name))
"""


class Hub(BaseHTTPRequestHandler):
    """What the hub's client asks of it for one file."""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        there = self.path.endswith("/resolve/main/a.bin") and "absent" not in self.path
        self.send_response(200 if there else 404)
        if there:
            self.send_header("ETag", f'"{DIGEST}"')
            self.send_header("X-Repo-Commit", "1" * 40)
        else:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("Content-Length", str(len(CONTENT) if there else 0))
        self.end_headers()
        if body and there:
            self.wfile.write(CONTENT)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def test_what_arrives_is_checked(hub: str, tmp_path: Path) -> None:
    """By the hub's real client: a stated file, one whose digest the hub states, another's, none, an
    encoder's, which finds it, and the first again."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "pinned", "stated", "other", "absent", "seen", "pinned"],
        env=environment() | {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.split("code ")[-1] == "0\n", done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("code")] == [
        f"code {n}" for n in (0, 0, 4, 4, 0, 0)
    ]
    checked = [line for line in lines if "SHA-256" in line]
    assert [line.rpartition(" as ")[2] for line in checked] == [
        "the release states)",
        "the hub states)",
        "the release states)",
        "the release states)",
    ]
    (folder,) = [line for line in lines if line.startswith("folder")]
    assert (Path(folder.removeprefix("folder ")) / "a.bin").read_bytes() == CONTENT
    assert all(f"SHA-256 {DIGEST[:12]}" in line and "1.8 kB" in line for line in checked)
    path = Path(checked[0].strip().partition(" (")[0])
    assert path.read_bytes() == CONTENT and tmp_path in path.parents
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert f"its SHA-256 is {DIGEST} and not {'0' * 64}; delete it" in errors[0]
    assert "fetch absent: a.bin of owner/absent (1.8 kB) could not be fetched" in errors[1]
    assert len(errors) == 2 and "Traceback" not in done.stderr


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(weights.FOLDER_VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hpsv2.1", "HPS_v2.1_compressed.pt of xswu/HPSv2 (1.97 GB) could not be fetched"),
        ("clip-l14", "model.safetensors of openai/clip-vit-large-patch14 (1.71 GB) could not"),
        ("dinov2", "config.json of facebook/dinov2-base (0.548 kB) could not be fetched"),
        ("hpsv2", "fetch hpsv2: unknown name; did you mean 'hpsv2."),
        ("colourfulness", "fetch colourfulness: it needs nothing from the hub"),
    ],
)
def test_one_line_without_a_hub(
    offline: None, benchmark_command: Command, name: str, message: str
) -> None:
    assert message in one_line_error(benchmark_command("fetch", name), 4)


def test_missing_weights_are_told_everywhere(
    offline: None, benchmark_command: Command, tiny_suite: Path
) -> None:
    command = "`python -m benchmark fetch hpsv2.1` fetches them"
    needs = "needs weights that are not here: Human Preference Score v2.1, a CLIP ViT-H/14 (1.97 GB"
    for arguments in (
        ["check", "hpsv2.1"],
        ["run", "--suite", tiny_suite, "--rewards", "hpsv2.1", "--dry-run"],
        ["run", "--suite", tiny_suite, "--set", "evaluation.rewards=[hpsv2.1]", "--dry-run"],
    ):
        error = one_line_error(benchmark_command(*arguments), 4)
        assert needs in error and error.endswith(command)
    listed = benchmark_command("list", "rewards")
    assert listed.returncode == 0 and "hpsv2.1" in listed.stdout


def test_optional_rewards_judge_where_they_are_asked_for(tiny_suite: Path) -> None:
    """So that a protocol does not depend on which weights lie on a machine."""
    from benchmark import resolution, suite

    values, origins = suite.read(str(tiny_suite))
    resolved = resolution.resolve(suite.check(values, origins), origins)
    from rewards import registry

    optional = {name for name, kind in registry().items() if kind.optional()}
    assert "conse" in optional and "hpsv2.1" in optional
    assert not optional & set(resolved.judges)
    assert optional <= set(resolved.unscored)
    assert "evaluation.rewards of the suite does not name it" in resolved.unscored["hpsv2.1"]
