"""``benchmark fetch`` of what is not on the hub, from an address of this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from benchmark.errors import UsageError
from benchmark.fetch import fetch
from rewards import weights
from rewards.weights import WeightFile, Weights, manifest

CONTENT = b"weights of nothing" * 100


class Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        there = self.path == "/at/a/file.bin"
        self.send_response(200 if there else 404)
        self.send_header("Content-Length", str(len(CONTENT) if there else 0))
        self.end_headers()
        self.wfile.write(CONTENT if there else b"")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one in place of torch's."""
    monkeypatch.delenv(weights.FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def release(hub_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """``release(name, sha256)`` makes a network known that lies at an address of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    Thread(target=server.serve_forever, daemon=True).start()

    def known(name: str, sha256: str) -> Weights:
        file = WeightFile(name, len(CONTENT), sha256)
        address = f"http://127.0.0.1:{server.server_address[1]}/at/"
        entry = Weights("tiny", "A tiny one", "owner/tiny", "MIT", (file,), address)
        monkeypatch.setitem(manifest(), "tiny", entry)
        return entry

    yield known
    server.shutdown()


def test_weights_come_from_the_address_of_their_release(
    release: Any, hub_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    entry = release("a/file.bin", digest)
    assert not entry.here
    fetch("tiny")
    path = hub_folder / "tiny" / "a" / "file.bin"
    assert entry.here and weights.only_path("tiny") == path and path.read_bytes() == CONTENT
    assert f"SHA-256 {digest[:12]}... as the release states" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "reason"), [("a/file.bin", "hash"), ("absent", "404")])
def test_what_does_not_come_whole_is_one_line(
    name: str, reason: str, release: Any, hub_folder: Path
) -> None:
    entry = release(name, "0" * 64)
    with pytest.raises(UsageError, match=f"could not be fetched from {entry.url} .*{reason}") as e:
        fetch("tiny")
    assert "\n" not in str(e.value)
    assert not [path for path in hub_folder.rglob("*") if path.is_file()]
