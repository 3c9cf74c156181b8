"""A diffusion model of a few hundred weights, on which a method's round takes milliseconds.

It has all that a method may get wrong: frozen weights beside trainable ones, prompts, two branches
of guidance, a decoder, half precision, and a ledger that counts. It draws nothing that means
anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from diffusion.kernel import make_schedule
from diffusion.ledger import Ledger
from diffusion.policy import Conditioning, NoisePrediction, Policy
from diffusion.randomness import generator

STABLE_DIFFUSION = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
CHANNELS, SIZE, WIDTH = 3, 4, 8


class TinyUnet(nn.Module):
    """Noise prediction of latents ``[n, 3, 4, 4]``: a frozen network, and what trains added."""

    def __init__(self, steps: int, source: torch.Generator) -> None:
        super().__init__()

        def frozen(*shape: int) -> nn.Parameter:
            weight = torch.randn(shape, generator=source) / shape[-1] ** 0.5
            return nn.Parameter(weight, requires_grad=False)

        pixels = CHANNELS * SIZE**2
        self.inner = frozen(WIDTH, pixels)
        self.text = frozen(WIDTH, WIDTH)
        self.step = frozen(steps, WIDTH)
        self.outer = frozen(pixels, WIDTH)
        # Neither is zero, unlike LoRA at its start: a gradient reaches every weight at once.
        self.down = nn.Parameter(0.3 * torch.randn(2, WIDTH, generator=source))
        self.up = nn.Parameter(0.3 * torch.randn(pixels, 2, generator=source))

    def forward(
        self, latents: torch.Tensor, step: torch.Tensor, states: torch.Tensor
    ) -> torch.Tensor:
        """Noise ``[n, 3, 4, 4]`` for text states ``[n, 1, 8]``."""
        x, text = latents.float().flatten(1), states[:, 0].float()
        hidden = torch.tanh(_each(self.inner, x) + _each(self.text, text) + self.step[step])
        noise = 0.5 * x + _each(self.outer + self.up @ self.down, hidden)
        return noise.view_as(latents).to(latents.dtype)


def _each(matrix: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """The matrix times each of the vectors ``[n, width]``, rounded alike whatever n is, as matrix
    products are not."""
    return (matrix * vectors.unsqueeze(1)).sum(-1)


class TinyFlow(nn.Module):
    """A log flow, float32."""

    def __init__(self, steps: int, source: torch.Generator) -> None:
        super().__init__()
        pixels = CHANNELS * SIZE**2
        self.inner = nn.Parameter(torch.randn(WIDTH, pixels, generator=source) / pixels**0.5)
        self.text = nn.Parameter(torch.randn(WIDTH, WIDTH, generator=source) / WIDTH**0.5)
        self.step = nn.Parameter(torch.randn(steps, WIDTH, generator=source))
        self.outer = nn.Parameter(torch.randn(WIDTH, generator=source))

    def forward(
        self, latents: torch.Tensor, step: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        """Log flows ``[n]``."""
        x, states = latents.float().flatten(1), conditioning.conditional[:, 0].float()
        hidden = torch.tanh(x @ self.inner.T + states @ self.text.T + self.step[step])
        return hidden @ self.outer


class TinyPolicy(Policy):
    """Latents ``[n, 3, 4, 4]``, pictures ``[n, 3, 8, 8]``, a text state for each prompt's text."""

    def __init__(
        self,
        dtype: torch.dtype = torch.float32,
        steps: int = 4,
        eta: float = 1.0,
        guidance_scale: float = 3.0,
    ) -> None:
        source = generator(0, "tiny policy")
        self.schedule = make_schedule(STABLE_DIFFUSION, steps)
        self.ledger = Ledger()
        self.eta, self.guidance_scale = eta, guidance_scale
        self.latent_shape = (CHANNELS, SIZE, SIZE)
        self.device, self.dtype = torch.device("cpu"), dtype
        self.unet = TinyUnet(steps, source)
        mix = torch.randn(CHANNELS, CHANNELS, generator=source)
        self.decoder = nn.Parameter(mix, requires_grad=False)
        self._untrained = self.state_dict()

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Noise that the text decides, as states ``[n, 1, 8]``."""
        states = [torch.randn(1, WIDTH, generator=generator(0, "text", p)) for p in ["", *prompts]]
        stacked = torch.stack(states).to(self.dtype)
        return Conditioning(stacked[1:], stacked[:1])

    def predict_noise(
        self, latents: torch.Tensor, step: torch.Tensor, conditioning: Conditioning
    ) -> NoisePrediction:
        """See :meth:`Policy.predict_noise`."""
        if self.guidance_scale == 1:
            conditional = self.predict_conditional_noise(latents, step, conditioning)
            return NoisePrediction(conditional, conditional)
        empty = conditioning.unconditional.expand(len(latents), -1, -1)
        states = torch.cat([empty, conditioning.conditional])
        both = self._call(latents.repeat(2, 1, 1, 1), step.repeat(2), states)
        unconditional, conditional = both.chunk(2)
        guided = unconditional + self.guidance_scale * (conditional - unconditional)
        return NoisePrediction(guided, conditional)

    def predict_conditional_noise(
        self, latents: torch.Tensor, step: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        """See :meth:`Policy.predict_conditional_noise`."""
        return self._call(latents, step, conditioning.conditional)

    def _call(
        self, latents: torch.Tensor, step: torch.Tensor, states: torch.Tensor
    ) -> torch.Tensor:
        samples = len(latents)
        output = self.unet(latents.to(self.dtype), step, states)
        self.ledger.add("unet_forward", samples)
        if output.requires_grad:
            output.register_hook(lambda _: self.ledger.add("unet_backward", samples))
        return output.float()

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Each latent pixel's channels mixed, as two by two pixels of the picture."""
        self.ledger.add("vae_decode", len(latents))
        colours = torch.einsum("oc,nchw->nohw", self.decoder, latents.float())
        return colours.sigmoid().repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    def parameters(self) -> list[nn.Parameter]:
        """The two low-rank factors."""
        return [self.unet.down, self.unet.up]

    def build_flow(self, generator: torch.Generator) -> TinyFlow:
        """See :meth:`Policy.build_flow`."""
        return TinyFlow(self.schedule.steps, generator)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """See :meth:`Policy.state_dict`."""
        return {name: getattr(self.unet, name).detach().clone() for name in ("down", "up")}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """See :meth:`Policy.load_state_dict`."""
        for name in ("down", "up"):
            getattr(self.unet, name).copy_(state[name])

    def save_weights(self, folder: Path) -> None:
        """``tiny.safetensors``."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), folder / "tiny.safetensors")

    @contextmanager
    def base(self) -> Iterator[None]:
        """See :meth:`Policy.base`."""
        trained = self.state_dict()
        self.load_state_dict(self._untrained)
        try:
            yield
        finally:
            self.load_state_dict(trained)
