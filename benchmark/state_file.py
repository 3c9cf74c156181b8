"""State as bytes that can be checked: tensors and plain values in one safetensors file.

Tensors are stored as such; everything else is JSON in the file's metadata, where a tensor stands
by its name. Nothing in it is ever executed. A file's name ends in the SHA-256 of its content, so
``sha256sum`` tells whether it is whole.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

KEY = "state"
"""Of the JSON in the metadata."""


class Damaged(Exception):
    """Bytes that hold no state; the message is one line that says why."""


def pack(state: Any) -> bytes:
    """Tensors, numbers, text, None, and lists, tuples and dictionaries of these.

    Raises ``TypeError`` that names the place of anything else.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_as_json(state, "", tensors), ensure_ascii=False)
    return safetensors.torch.save(tensors, metadata={KEY: text})


def unpack(content: bytes) -> Any:
    """What :func:`pack` was given, tensors on the CPU; raises ``Damaged``."""
    try:
        tensors = safetensors.torch.load(content)
        # The format: the length of the header in eight bytes, then the header as JSON.
        length = int.from_bytes(content[:8], "little")
        text = json.loads(content[8 : 8 + length])["__metadata__"][KEY]
        return _as_state(json.loads(text), tensors)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"it holds no state: {' '.join(str(error).split())}") from error


def checksum(content: bytes) -> str:
    """SHA-256, 64 digits."""
    return hashlib.sha256(content).hexdigest()


def _as_json(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Lists are themselves; an object with one key says what the value of the key is."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        while path in tensors:  # of the keys 1 and "1"
            path += "'"
        # Copied: the format refuses tensors that share memory.
        tensors[path] = value.detach().cpu().contiguous().clone()
        return {"tensor": path}
    if isinstance(value, list | tuple):
        items = [_as_json(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, dict):
        # Pairs, since keys may be numbers, as those of an optimizer's parameters are.
        return {
            "dict": [
                [_as_json(k, f"{path}/{k}", tensors), _as_json(v, f"{path}/{k}", tensors)]
                for k, v in value.items()
            ]
        }
    raise TypeError(f"state {path or '/'} is no tensor or JSON value")


def _as_state(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_as_state(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_as_state(item, tensors) for item in content)
    return {_as_state(k, tensors): _as_state(v, tensors) for k, v in content}
