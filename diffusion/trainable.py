"""Which of the UNet's weights train: LoRA through peft, or all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn

ATTENTION_PROJECTIONS = ["to_q", "to_k", "to_v", "to_out.0"]
"""Where released DDPO, DAG and AlignProp put LoRA."""
LORA_FILE = "pytorch_lora_weights.safetensors"


class TrainableWeights(ABC):
    """The trainable part of a UNet: what requires a gradient when this is made."""

    def __init__(self, unet: UNet2DConditionModel):
        self.unet = unet
        # Kept, not looked up: while adapters are disabled, peft has them require no gradient.
        self._named = {name: p for name, p in unet.named_parameters() if p.requires_grad}

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by their name in the UNet, in a fixed order."""
        return dict(self._named)

    def parameters(self) -> list[nn.Parameter]:
        """The trainable parameters."""
        return list(self.named_parameters().values())

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Copies on the CPU."""
        return {name: p.detach().cpu().clone() for name, p in self.named_parameters().items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Raises ``ValueError`` where names or shapes differ; then nothing is changed."""
        parameters = self.named_parameters()
        if parameters.keys() != state.keys():
            different = sorted(parameters.keys() ^ state.keys())
            raise ValueError(f"trainable weights do not match, first difference: {different[0]}")
        for name, parameter in parameters.items():
            if parameter.shape != state[name].shape:  # copy_ would broadcast some of them
                own, given = tuple(parameter.shape), tuple(state[name].shape)
                raise ValueError(f"trainable weights do not match: {name} is {own}, not {given}")
        for name, parameter in parameters.items():
            parameter.copy_(state[name])

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the weights for other programs."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Set the weights to what :meth:`save` wrote.

        Raises ``ValueError`` where names or shapes differ, ``OSError`` where a file is missing, and
        ``SafetensorError`` where one is damaged.
        """

    @abstractmethod
    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The untrained weights inside."""
        yield


class LoRA(TrainableWeights):
    """Low-rank adapters (arXiv 2106.09685) on the attention projections, float32.

    ``A`` is normal with standard deviation 1/rank from ``generator``, ``B`` zero, so the model
    starts exactly untrained. The output is scaled by ``alpha / rank``.
    """

    def __init__(
        self, unet: UNet2DConditionModel, rank: int, alpha: float, generator: torch.Generator
    ):
        unet.requires_grad_(False)
        self.config = LoraConfig(
            r=rank, lora_alpha=alpha, target_modules=ATTENTION_PROJECTIONS, init_lora_weights=True
        )
        with torch.random.fork_rng(devices=[]):  # peft initialises from the global generator
            unet.add_adapter(self.config)
        super().__init__(unet)
        for name, parameter in self.named_parameters().items():
            parameter.data = parameter.data.float()
            if "lora_A" in name:
                noise = torch.randn(parameter.shape, generator=generator) / rank
                parameter.data.copy_(noise)

    def save(self, folder: Path) -> None:
        """``pytorch_lora_weights.safetensors`` with rank and alpha in its metadata."""
        metadata = self.config.to_dict()
        StableDiffusionPipeline.save_lora_weights(
            folder,
            unet_lora_layers=get_peft_model_state_dict(self.unet),
            unet_lora_adapter_metadata={k: _plain(v) for k, v in metadata.items()},
        )

    def load(self, folder: Path) -> None:
        """See :meth:`TrainableWeights.load`."""
        stored = load_file(folder / LORA_FILE)
        own = {_stored_name(name): name for name in self.named_parameters()}
        self.load_state_dict({own.get(name, name): value for name, value in stored.items()})

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Adapters off inside."""
        self.unet.disable_adapters()
        try:
            yield
        finally:
            self.unet.enable_adapters()


class FullWeights(TrainableWeights):
    """All UNet weights train; the untrained ones are kept on the CPU."""

    def __init__(self, unet: UNet2DConditionModel):
        unet.requires_grad_(True)
        super().__init__(unet)
        self._untrained = self.state_dict()

    def save(self, folder: Path) -> None:
        """diffusers' folder layout of the UNet."""
        self.unet.save_pretrained(folder, safe_serialization=True)

    def load(self, folder: Path) -> None:
        """See :meth:`TrainableWeights.load`."""
        stored = UNet2DConditionModel.from_pretrained(folder, use_safetensors=True)
        self.load_state_dict(stored.state_dict())

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Untrained weights inside, trained ones back afterwards."""
        trained = self.state_dict()
        self.load_state_dict(self._untrained)
        try:
            yield
        finally:
            self.load_state_dict(trained)


def _stored_name(name: str) -> str:
    """A parameter's name in ``LORA_FILE``, which names no adapter."""
    return "unet." + name.replace(".default.", ".")


def _plain(value: object) -> object:
    """LoRA metadata is stored as JSON, which knows no sets."""
    return sorted(value) if isinstance(value, set) else value
