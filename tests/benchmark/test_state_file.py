"""State as bytes: what goes in comes out, and nothing else is taken for it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import safetensors.torch
import torch

from benchmark import state_file
from benchmark.state_file import Damaged, pack, unpack


def test_what_goes_in_comes_out() -> None:
    shared = torch.arange(6, dtype=torch.bfloat16).view(2, 3)
    state: dict[str, Any] = {
        "text": 'a "prompt"\n\u202e\x00',
        "numbers": [1, 2**70, 0.1 + 0.2, True, None, math.inf],
        "pair": ((1, 2.0), []),
        "by number": {0: shared, "0": shared.T, 1: {}},
        "step": torch.tensor(3.0),
        "flags": torch.tensor([True, False]),
        "none": torch.zeros(0, 4, dtype=torch.int64),
        "": {"tensor": "not one"},
    }
    found = unpack(pack(state))
    tensors = [found["by number"].pop(key) for key in (0, "0")]
    assert torch.equal(tensors[0], shared) and torch.equal(tensors[1], shared.T)
    assert tensors[0].dtype == torch.bfloat16
    for name in ("step", "flags", "none"):
        given, taken = state.pop(name), found.pop(name)
        assert torch.equal(given, taken) and given.dtype == taken.dtype
    del state["by number"][0], state["by number"]["0"]
    assert found == state
    assert [type(value) for value in found["numbers"]] == [type(v) for v in state["numbers"]]
    assert math.isnan(unpack(pack(math.nan)))


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", 1j, torch.Generator()])
def test_anything_else_is_refused_by_its_place(value: Any) -> None:
    with pytest.raises(TypeError, match="state /method/0 is no tensor or JSON value"):
        pack({"method": [value]})


def test_every_flipped_bit_changes_the_checksum_and_no_cut_is_taken() -> None:
    content = pack({"weights": torch.arange(4.0), "round": 3})
    known = state_file.checksum(content)
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1
        assert state_file.checksum(bytes(flipped)) != known
        with pytest.raises(Damaged):
            unpack(content[:place])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04K\x01.",
        safetensors.torch.save({"a": torch.zeros(1)}),
        safetensors.torch.save({}, metadata={"state": "["}),
        safetensors.torch.save({}, metadata={"state": '{"tensor": "a"}'}),
        safetensors.torch.save({}, metadata={"state": '{"a": 1, "b": 2}'}),
        safetensors.torch.save({}, metadata={"state": '{"dict": [[{"dict": []}, 1]]}'}),
        safetensors.torch.save({}, metadata={"other": json.dumps(1)}),
    ],
)
def test_what_holds_no_state_is_one_line(content: bytes) -> None:
    with pytest.raises(Damaged, match="it holds no state: .") as raised:
        unpack(content)
    assert "\n" not in str(raised.value)
