"""What autograd keeps, counted on the meta device."""

from __future__ import annotations

import torch
from torch import nn

from diffusion.activations import kept, unet_activations


def test_a_chain_of_layers_keeps_its_inputs_once() -> None:
    with torch.device("meta"):
        network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
        batch = torch.empty(32, 8)
    with kept(network) as found:
        network(batch)
    assert found.bytes == 4 * 32 * (8 + 16)  # the ReLU's output is the second layer's input
    with kept(network) as found, torch.no_grad():
        network(batch)
    assert found.bytes == 0


def test_the_count_is_that_of_real_tensors() -> None:
    network = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 4, 3))
    counts = []
    for device in ("cpu", "meta"):
        network.to(device)
        with kept(network) as found:
            network(torch.zeros(2, 4, 8, 8, device=device))
        counts.append(found.bytes)
    assert counts[0] == counts[1] == 4 * 2 * (4 + 8 + 8) * 64


def test_checkpointing_keeps_a_fraction() -> None:
    one, two = (unet_activations("sd15-random", n, torch.bfloat16) for n in (2, 4))
    assert one.checkpointed + one.largest_block < one.plain / 2
    assert 1.9 < two.plain / one.plain < 2.1
