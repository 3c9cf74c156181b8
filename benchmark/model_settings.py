"""The part of a suite that says which model is aligned, and how it is run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)


class Settings(BaseModel):
    """Base of all parts of a suite: frozen, unknown keys are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class ModelSettings(Settings):
    """The model that is aligned, and its sampler."""

    name: str = "emoji"
    """``emoji`` or ``mixture``, which come with the program, a Stable Diffusion 1 or SDXL folder or
    hub id, or ``sd15-random`` or ``sdxl-random``, their architectures with random weights."""
    sampling_steps: int = Field(default=10, ge=1, le=1000)
    """Denoising steps of one image."""
    guidance_scale: float = Field(default=3.0, ge=1.0)
    """Weight of the prompt in classifier-free guidance; 1 is no guidance."""
    eta: float = Field(default=1.0, ge=0.0, le=1.0)
    """Noise of the DDIM sampler: 0 none, 1 as in ancestral sampling."""
    variance: Literal["posterior", "learned"] = "posterior"
    """Variance of a denoising step: ``posterior``, the sampler's own, too small for few steps, or
    ``learned``, the model's for each state; only ``mixture`` has one."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the frozen weights and of the forward pass; adapters and flow networks are in
    float32 always, with float16 states and autoencoder too."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where cells compute; ``auto`` takes a GPU where there is one."""
    processes: int = Field(default=1, ge=1)
    """Processes that train each cell together, on one machine, with a GPU each where cells compute
    on GPUs; what does not train has one. Changes results by rounding, those of ``dag-kl`` by
    more."""
    trainable: Literal["lora", "full"] = "lora"
    """What is trained: low-rank adapters of the attention layers, or the whole UNet."""
    lora_rank: int = Field(default=8, ge=1)
    """Rank of the adapters."""
    lora_alpha: float = Field(default=8.0, gt=0.0)
    """Scale of the adapters; their output is multiplied by ``lora_alpha / lora_rank``."""
    gradient_checkpointing: bool = False
    """Whether UNet and decoder compute their blocks again for a gradient, in place of keeping them:
    a forward pass more, several times less memory."""
    vae_slicing: bool = False
    """Whether pictures are decoded one at a time."""
    attention: Literal["sdpa", "eager", "sliced", "xformers"] = "sdpa"
    """Attention of the UNet: torch's fused one, plain products, those a slice at a time, or that of
    xformers, where it is installed."""
    compile: bool = False
    """Whether the UNet goes through ``torch.compile``."""

    @model_serializer(mode="wrap")
    def _without_unused(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Settings of later, left alone, are not written: runs and keys of before stay."""
        values: dict[str, Any] = dump(self)
        later = {**ECONOMIES, "processes": 1}
        unused = {name for name in later if getattr(self, name) == later[name]}
        return {name: value for name, value in values.items() if name not in unused}


ECONOMIES = {
    name: ModelSettings.model_fields[name].default
    for name in ("gradient_checkpointing", "vae_slicing", "attention", "compile")
}
"""Settings that change time and memory, and numbers by rounding only; with their defaults."""
