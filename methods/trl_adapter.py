"""A policy as the pipeline that the trainers of TRL drive.

TRL (huggingface/trl) had trainers of DDPO and AlignProp up to release 0.23.1. What runs here is
their code as released: a trainer's ``step`` with its loss, accumulation and optimizer, the
sampling loops ``pipeline_step`` and ``pipeline_step_with_grad``, and ``scheduler_step`` with its
log densities. ``PolicyPipeline`` stands in their place of a diffusers pipeline, and asks the
policy for text states, noise predictions and pictures, so that all that costs is counted in the
policy's ledger. Three things are given to TRL from outside:

- noise, from the generators of the round's trajectories, in place of the global generator;
- the state of the global generators while TRL runs: it shuffles and truncates by them. They are
  seeded for the round and put back as they were afterwards;
- the timesteps of the policy's schedule, with alphas rounded to float32 as in diffusers.

Kept as TRL has them: the timestep before t is t - 1000 // steps, at least 0 (a schedule with
another grid is refused); log densities are of latents before they are rounded to the policy's
dtype, so that the first ratio is 1 in float32 alone; schedule arithmetic is float32. Not there:
training on several processes (its trainers do not average gradients), its checkpoints, its
mixed precision.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, Protocol, Self

import torch
from diffusers import DDIMScheduler
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import nn

from diffusion.kernel import Schedule
from diffusion.policy import Conditioning, Policy
from diffusion.rollout import initial_latents

EXTRA = "trl"
RELEASE = "0.23.1"
"""The last release with ``DDPOTrainer`` and ``AlignPropTrainer``."""


def unavailable() -> str:
    """Why TRL's trainers cannot run here, empty if they can; imports nothing."""
    remedy = f"pip install trl=={RELEASE}"
    try:
        installed = importlib.metadata.version("trl")
    except importlib.metadata.PackageNotFoundError:
        return f"needs the package trl, which is not installed: {remedy}"
    if installed != RELEASE:
        return f"needs trl {RELEASE}, and {installed} is installed: {remedy}"
    return ""


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of ``number`` up to ``limit``."""
    return next(size for size in range(min(number, limit), 0, -1) if number % size == 0)


class UpdateConfig(Protocol):
    """The options that decide an update's images."""

    @property
    def prompts_per_round(self) -> int: ...
    @property
    def images_per_prompt(self) -> int: ...
    @property
    def updates_per_round(self) -> int: ...


def update_size(config: UpdateConfig) -> int:
    """Images of one update; raises ``ValueError`` when a round's are not a multiple of them."""
    images = config.prompts_per_round * config.images_per_prompt
    if images % config.updates_per_round:
        raise ValueError(
            f"TRL needs equal updates: a round of {images} images cannot be split in "
            f"{config.updates_per_round}"
        )
    return images // config.updates_per_round


class GridScheduler(DDIMScheduler):
    """diffusers' DDIM scheduler on a policy's grid.

    Raises ``ValueError`` for a grid that TRL would take for another.
    """

    def __init__(self, schedule: Schedule) -> None:
        total = len(schedule.alphas_cumprod)
        super().__init__(num_train_timesteps=total, clip_sample=False, set_alpha_to_one=False)
        assumed = (schedule.timesteps - total // schedule.steps).clamp(min=0)
        if not torch.equal(assumed, schedule.previous.clamp(min=0)):
            raise ValueError(
                "TRL takes the timestep before t to be t - 1000 // sampling steps, which this "
                "schedule's is not: use timestep_spacing 'leading' or steps that divide 1000"
            )
        if schedule.final_alpha_cumprod != schedule.alphas_cumprod[0].item():
            raise ValueError(
                "TRL ends at the alpha of timestep 0: scheduler setting set_alpha_to_one must be "
                "false, as in Stable Diffusion"
            )
        self.alphas_cumprod = schedule.alphas_cumprod.float()
        self.final_alpha_cumprod = self.alphas_cumprod[0]
        self.grid = schedule.timesteps
        self.set_timesteps(schedule.steps)

    def set_timesteps(
        self, num_inference_steps: int, device: str | torch.device | None = None
    ) -> None:
        """The policy's timesteps, whatever is asked for."""
        self.num_inference_steps = len(self.grid)
        self.timesteps = self.grid.to(device)


class StandIn(nn.Module):
    """A part of a pipeline that stays where it is and as precise as it is."""

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Nothing: the policy's parts are placed already."""
        return self


class PolicyUnet(StandIn):
    """Noise predictions of a policy, in the call of diffusers' UNet."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy
        self.trained = nn.ParameterList(policy.parameters())
        shape = policy.latent_shape
        self.config = SimpleNamespace(in_channels=shape[0], sample_size=shape[-1])
        steps = torch.arange(policy.schedule.steps)
        self.step_of = torch.zeros(len(policy.schedule.alphas_cumprod), dtype=torch.long)
        self.step_of[policy.schedule.timesteps] = steps

    def forward(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        cross_attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool = True,
    ) -> UNet2DConditionOutput | tuple[torch.Tensor]:
        """Noise predictions ``[n, ...]`` at one timestep or at ``[n]``."""
        step = self.step_of.to(timestep.device)[timestep].expand(len(latents))
        conditioning = Conditioning(encoder_hidden_states, encoder_hidden_states[:1])
        noise = self.policy.predict_conditional_noise(latents, step, conditioning)
        return UNet2DConditionOutput(sample=noise) if return_dict else (noise,)


class PolicyVae(StandIn):
    """Pictures of a policy, in the call of diffusers' autoencoder."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy
        self.config = SimpleNamespace(scaling_factor=1.0)  # the policy's decoder has its own

    def decode(self, latents: torch.Tensor, return_dict: bool = True) -> tuple[torch.Tensor]:
        """What the policy decodes, as it is: pictures ``[n, 3, h, w]`` are in [0, 1] already."""
        return (self.policy.decode(latents),)


class ImageProcessor:
    """Leaves pictures as they are, in the call of diffusers' processor."""

    def postprocess(self, images: torch.Tensor, **_: Any) -> torch.Tensor:
        """``images``."""
        return images


class Tokenizer:
    """Prompts by number, so that TRL tells them apart by their exact text."""

    model_max_length = 1

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def __call__(self, prompts: Sequence[str], **_: Any) -> SimpleNamespace:
        """``input_ids`` int64 ``[n, 1]``."""
        self.prompts += [p for p in dict.fromkeys(prompts) if p not in self.prompts]
        return SimpleNamespace(
            input_ids=torch.tensor([[self.prompts.index(prompt)] for prompt in prompts])
        )

    def batch_decode(self, ids: Any, **_: Any) -> list[str]:
        """The prompts of ``[n, 1]`` numbers."""
        return [self.prompts[int(index)] for (index,) in ids]


class TextEncoder(StandIn):
    """Text states of a policy."""

    def __init__(self, policy: Policy, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.policy, self.tokenizer = policy, tokenizer

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor]:
        """States ``[n, tokens, width]``."""
        return (self.policy.encode(self.tokenizer.batch_decode(ids)).conditional,)


class PolicyPipeline:
    """What TRL's trainers and sampling loops ask of a pipeline, answered by a policy.

    ``generators`` are those of the trajectories sampled next, one each.
    """

    use_lora = True  # TRL's word for: train what requires a gradient, and do not autocast
    autocast = contextlib.nullcontext
    vae_scale_factor = 1

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.scheduler = GridScheduler(policy.schedule)
        self.unet, self.vae, self.tokenizer = PolicyUnet(policy), PolicyVae(policy), Tokenizer()
        self.text_encoder = TextEncoder(policy, self.tokenizer)
        self.image_processor = ImageProcessor()
        self.generators: list[torch.Generator] = []
        self._execution_device = policy.device

    def __call__(self, **arguments: Any) -> Any:
        """Samples by TRL's loop: pictures, latents and log densities."""
        from trl.models.modeling_sd_base import pipeline_step

        return self._sample(pipeline_step, arguments)

    def rgb_with_grad(self, **arguments: Any) -> Any:
        """Samples by TRL's differentiable loop."""
        from trl.models.modeling_sd_base import pipeline_step_with_grad

        return self._sample(pipeline_step_with_grad, arguments)

    def _sample(self, loop: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        latents = initial_latents(self.policy, self.generators)
        with self.policy.ledger.phase("sample"), self._noise_of_generators():
            output = loop(self, latents=latents, **arguments)
        self.policy.ledger.add("images", len(self.generators))
        self.generators = []
        return output

    @contextlib.contextmanager
    def _noise_of_generators(self) -> Iterator[None]:
        """Inside, TRL's loops draw each trajectory's noise from its own generator."""
        from trl.models import modeling_sd_base

        def drawn(shape: Any, *, device: Any, dtype: Any, generator: Any = None) -> torch.Tensor:
            noise = [torch.randn(self.policy.latent_shape, generator=g) for g in self.generators]
            return torch.stack(noise).to(device, dtype)

        own, modeling_sd_base.randn_tensor = modeling_sd_base.randn_tensor, drawn
        try:
            yield
        finally:
            modeling_sd_base.randn_tensor = own

    def scheduler_step(self, *arguments: Any, **options: Any) -> Any:
        """TRL's transition and log density."""
        from trl.models.modeling_sd_base import scheduler_step

        return scheduler_step(self.scheduler, *arguments, **options)

    def get_trainable_layers(self) -> PolicyUnet:
        """The network whose parameters TRL trains."""
        return self.unet

    def prepare_latents(self, *arguments: Any) -> torch.Tensor:
        """The latents that were handed in, the last argument."""
        return arguments[-1]

    def _encode_prompt(
        self, prompt: None, device: Any, images: int, guided: bool, negative: None, **given: Any
    ) -> torch.Tensor:
        """Text states, those of the empty prompt first where there is guidance."""
        states = given["prompt_embeds"]
        return torch.cat([given["negative_prompt_embeds"], states]) if guided else states

    def run_safety_checker(self, images: torch.Tensor, *_: Any) -> tuple[torch.Tensor, None]:
        """There is none."""
        return images, None

    def check_inputs(self, *_: Any) -> None:
        """Inputs come from the policy."""

    def set_progress_bar_config(self, **_: Any) -> None:
        """There is none."""

    def progress_bar(self, total: int) -> Any:
        """There is none."""
        return contextlib.nullcontext(SimpleNamespace(update=lambda: None))
