"""How much memory a network keeps for its backward pass, counted without computing anything.

On torch's meta device a forward pass makes shapes alone, and autograd still says which tensors it
would keep. So the figures are what the program asks for, not what an allocator makes of it:
kernels' own workspaces and fragmentation come on top. Attention is counted as a GPU has it: fused,
it keeps its inputs, its output and a row's normaliser, where products kept apart, which torch takes
on the meta device, keep every pair of positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from diffusion import architectures
from diffusion.randomness import generator
from diffusion.trainable import LoRA


@dataclass
class Kept:
    """Bytes that autograd keeps, each storage once, parameters not among them."""

    owned: set[int]
    """Storages that are there anyway."""
    storages: dict[int, torch.UntypedStorage] = field(default_factory=dict)
    """Held, so that no other takes an address that was counted."""

    @property
    def bytes(self) -> int:
        """In all so far."""
        return sum(storage.nbytes() for storage in self.storages.values())

    def note(self, tensor: torch.Tensor) -> torch.Tensor:
        """Count a tensor that is kept; it is handed back."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.owned:
            self.storages[storage._cdata] = storage
        return tensor


@contextmanager
def kept(network: nn.Module) -> Iterator[Kept]:
    """Counts inside; what the network itself consists of does not count."""
    parts = [*network.parameters(), *network.buffers()]
    found = Kept({part.untyped_storage()._cdata for part in parts})
    with torch.autograd.graph.saved_tensors_hooks(found.note, lambda tensor: tensor):
        yield found


@dataclass(frozen=True)
class Activations:
    """Bytes that a UNet with adapters keeps of one call."""

    plain: int
    checkpointed: int
    """With gradient checkpointing, between the passes."""
    largest_block: int
    """What checkpointing computes again at a time; it comes on top of ``checkpointed``."""


def unet_activations(name: str, batch: int, dtype: torch.dtype, rank: int = 4) -> Activations:
    """Of a model of ``architectures.RANDOM`` for a batch, both branches of guidance included."""
    with _fused_attention():
        return _activations(name, batch, dtype, rank)


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Inside, attention without a mask is the fused kernel's, of which torch knows the shapes."""
    products = functional.scaled_dot_product_attention

    def fused(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        assert attn_mask is None and dropout_p == 0.0 and not enable_gqa
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        return flash(query, key, value, 0.0, is_causal, False, scale=scale)[0]

    functional.scaled_dot_product_attention = fused
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = products


def _activations(name: str, batch: int, dtype: torch.dtype, rank: int) -> Activations:
    unet: Any = architectures.networks(name, "meta")["unet"].to(dtype)
    LoRA(unet, rank, rank, generator(0, "lora"))
    blocks: list[int] = []
    before_block: list[int] = []
    handles = []
    with kept(unet) as found:

        def before(*_: object) -> None:
            before_block.append(found.bytes)

        def after(*_: object) -> None:
            blocks.append(found.bytes - before_block.pop())

        for module in unet.modules():
            if isinstance(module, ResnetBlock2D | BasicTransformerBlock):
                handles.append(module.register_forward_pre_hook(before))
                handles.append(module.register_forward_hook(after))
        _call(unet, batch, dtype)
        plain = found.bytes
    for handle in handles:
        handle.remove()
    with kept(unet) as found:

        def remember(block: nn.Module, *inputs: Any) -> Any:
            # A checkpoint holds its inputs without telling autograd.
            for each in inputs:
                if isinstance(each, torch.Tensor):
                    found.note(each)
            return checkpoint(block, *inputs, use_reentrant=False)

        unet.enable_gradient_checkpointing(remember)
        _call(unet, batch, dtype)
    return Activations(plain, found.bytes, max(blocks))


def _call(unet: Any, batch: int, dtype: torch.dtype) -> None:
    config = unet.config
    with torch.device("meta"):
        size, width = config.sample_size, config.cross_attention_dim
        latents = torch.empty(batch, config.in_channels, size, size, dtype=dtype)
        states = torch.empty(batch, architectures.TEXT_LENGTH, width, dtype=dtype)
        steps = torch.zeros(batch, dtype=torch.int64)
        added = None
        if config.addition_embed_type == "text_time":
            sizes = 6 * config.addition_time_embed_dim
            pooled = config.projection_class_embeddings_input_dim - sizes
            added = {
                "text_embeds": torch.empty(batch, pooled, dtype=dtype),
                "time_ids": torch.empty(batch, 6, dtype=dtype),
            }
    unet(latents, steps, states, added_cond_kwargs=added)
