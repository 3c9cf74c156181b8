"""What autograd keeps, counted on the meta device."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diffusion import architectures
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


@pytest.mark.parametrize(
    ("batch", "checkpointing", "measured"),
    [(4, False, 6.72e9), (8, False, 10.98e9), (4, True, 3.48e9)],
)
def test_the_count_and_the_weights_are_what_a_gpu_allocates(
    batch: int, checkpointing: bool, measured: float
) -> None:
    """Peaks of DDPO in bfloat16 on an NVIDIA H200 with guidance, so that a batch is two
    micro-batches; at a peak there is also what a kernel works in."""
    found = unet_activations("sd15-random", batch, torch.bfloat16)
    networks = architectures.networks("sd15-random", "meta").values()
    weights = 2 * sum(p.numel() for network in networks for p in network.parameters())
    kept_bytes = found.checkpointed + found.largest_block if checkpointing else found.plain
    assert 0.87 < (weights + kept_bytes) / measured < 1


def test_checkpointing_keeps_a_fraction() -> None:
    one, two = (unet_activations("sd15-random", n, torch.bfloat16) for n in (2, 4))
    assert one.checkpointed + one.largest_block < one.plain / 2
    assert 1.9 < two.plain / one.plain < 2.1
