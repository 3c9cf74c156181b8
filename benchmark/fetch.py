"""``benchmark fetch``: weights of a reward, encoder or detector, from the model hub into its cache
here, or from the address where they were released.

Nothing else of the program fetches any. What arrives is checked against the SHA-256 in
``rewards/weights.toml`` or ``encoders/weights.toml``, or, where the release states none, against
the hub's own.
"""

from __future__ import annotations

import re
from pathlib import Path

import rewards
from benchmark import encoders
from benchmark.errors import UsageError, did_you_mean
from rewards.weights import WeightFile, Weights, in_words, manifest, sha256

_SHA256 = re.compile(r"[0-9a-f]{64}")


def fetch(name: str) -> None:
    """Fetch what a reward needs, or a network of either ``weights.toml``, and print where it lies.

    Raises ``UsageError`` for an unknown name, where the hub cannot be reached, and for a file that
    is not the released one.
    """
    known, registry = manifest() | encoders.networks(), rewards.registry()
    if name in registry:
        needed = [known[each] for each in registry[name].weights]
        if not needed:
            reason = registry[name].unavailable() or "it needs nothing from the hub"
            raise UsageError(f"fetch {name}: {reason}")
    elif name in known:
        needed = [known[name]]
    else:
        names = [*(each for each, kind in registry.items() if kind.weights), *known]
        raise UsageError(f"fetch {name}: unknown name; {did_you_mean(name, dict.fromkeys(names))}")
    for weights in needed:
        print(f"{weights.title}, licence {weights.licence}", flush=True)
        for file in weights.files:
            path, checked = _fetched(name, weights, file)
            print(f"  {path} ({in_words(path.stat().st_size)}, {checked})", flush=True)


def _fetched(name: str, weights: Weights, file: WeightFile) -> tuple[Path, str]:
    """Where a file lies, and what its content was checked against."""
    path = weights.path(file)
    expected, by = file.sha256, "the release"
    if path is None:
        path, stated = _download(name, weights, file)
        if not expected:
            expected, by = stated, "the hub"
    if not expected:
        return path, "SHA-256 not stated"
    if sha256(path) != expected:
        raise UsageError(
            f"fetch {name}: {path} is not what {by} states: its SHA-256 is {sha256(path)} and not "
            f"{expected}; delete it and fetch it again"
        )
    return path, f"SHA-256 {expected[:12]}... as {by} states"


def _download(name: str, weights: Weights, file: WeightFile) -> tuple[Path, str]:
    """A file from the hub or its address, and the SHA-256 that the hub states, if any."""
    import huggingface_hub

    place = weights.url or "the hub"
    try:
        if weights.url:
            return _from_address(weights, file), ""
        url = huggingface_hub.hf_hub_url(weights.repository, file.name)
        stated = huggingface_hub.get_hf_file_metadata(url).etag or ""
        path = huggingface_hub.hf_hub_download(weights.repository, file.name)
    except Exception as error:  # of the hub, of the network, or of a full disk
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(
            f"fetch {name}: {file.name} of {weights.repository} ({in_words(file.bytes)}) could not "
            f"be fetched from {place} ({reason.splitlines()[0]:.200})"
        ) from error
    return Path(path), stated if _SHA256.fullmatch(stated) else ""


def _from_address(weights: Weights, file: WeightFile) -> Path:
    """Where a file lies after it came whole; one of another SHA-256 is not kept."""
    import torch

    path = weights.downloaded(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.hub.download_url_to_file(
        weights.url + file.name, str(path), hash_prefix=file.sha256, progress=False
    )
    return path
