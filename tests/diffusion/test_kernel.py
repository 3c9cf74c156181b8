"""Transition kernels against closed forms, against diffusers, and at their edges."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

from diffusion.kernel import (
    Gaussian,
    clean_prediction,
    log_density,
    make_schedule,
    noising,
    require_stochastic,
    standard_deviation,
    transition,
)
from diffusion.randomness import generator
from tests.diffusion.schedules import STABLE_DIFFUSION
from tests.how_we_know import Record, distance

SHAPE = (4, 8, 8)


def normal(*purpose: str | int, n: int = 1, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(n, *SHAPE, generator=generator(0, *purpose)).to(dtype)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [1, 2, 4, 10, 20, 50, 100])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_transition_is_diffusers_ddim(
    spacing: str, steps: int, eta: float, evidence: Record
) -> None:
    settings = STABLE_DIFFUSION | {"timestep_spacing": spacing}
    scheduler = DDIMScheduler(**settings)
    scheduler.set_timesteps(steps)
    schedule = make_schedule(settings, steps)
    assert schedule.timesteps.tolist() == scheduler.timesteps.tolist()
    for index in sorted({0, steps // 2, steps - 1}):
        latents, prediction, noise = (normal(word, index) for word in ("x", "epsilon", "noise"))
        expected = scheduler.step(
            prediction, scheduler.timesteps[index], latents, eta=eta, variance_noise=noise
        )
        step = torch.tensor([index])
        ours = transition(schedule, step, latents, prediction, eta).sample(noise)
        clean = clean_prediction(schedule, step, latents, prediction)
        evidence(
            "a step of the sampler is diffusers' DDIM",
            distance(ours, expected.prev_sample),
            1e-5,
            "x_s and DDIMScheduler.step, eta 0, 0.5, 1, 1 to 100 steps",
        )
        evidence(
            "the clean prediction is diffusers'",
            distance(clean, expected.pred_original_sample),
            1e-5,
            "(x_t - sqrt(1 - alpha) eps) / sqrt(alpha) and DDIMScheduler.step",
        )


@pytest.mark.parametrize("steps", [3, 7, 30, 64, 333])
def test_leading_spacing_of_steps_that_do_not_divide_the_timesteps(steps: int) -> None:
    scheduler = DDIMScheduler(**STABLE_DIFFUSION)
    scheduler.set_timesteps(steps)
    schedule = make_schedule(STABLE_DIFFUSION, steps)
    assert schedule.timesteps.tolist() == scheduler.timesteps.tolist()


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [1, 3, 7, 30, 64, 999])
def test_each_step_starts_where_the_one_before_ended(spacing: str, steps: int) -> None:
    schedule = make_schedule(STABLE_DIFFUSION | {"timestep_spacing": spacing}, steps)
    assert schedule.steps == steps
    assert schedule.previous.tolist() == [*schedule.timesteps[1:].tolist(), -1]
    assert (schedule.timesteps.diff() < 0).all()
    index = torch.arange(steps)
    torch.testing.assert_close(schedule.alpha_previous(index)[:-1], schedule.alpha(index)[1:])
    assert schedule.alpha_previous(index)[-1] == schedule.alphas_cumprod[0]


def test_noise_variances_of_stable_diffusion_at_50_steps(evidence: Record) -> None:
    schedule = make_schedule(STABLE_DIFFUSION, 50)
    golden = {
        981: (961, 0.20685, 0.206537),
        501: (481, 0.0903, 0.086898),
        21: (1, 0.01795, 0.001559),
        1: (-1, 0.00085, 0.000426),
    }
    for timestep, (previous, noising_variance, variance) in golden.items():
        step = (schedule.timesteps == timestep).nonzero()[0]
        assert schedule.previous[step].item() == previous
        forward = noising(schedule, step, torch.zeros(1, *SHAPE)).std ** 2
        backward = standard_deviation(schedule, step, eta=1.0) ** 2
        evidence(
            "noising variances of Stable Diffusion at 50 steps",
            abs(forward.item() - noising_variance),
            6e-6,
            "1 - alpha_t / alpha_s and 0.20685, 0.0903, 0.01795, 0.00085 at t = 981, 501, 21, 1",
        )
        evidence(
            "sampling variances of Stable Diffusion at 50 steps",
            abs(backward.item() - variance),
            6e-7,
            "sigma_t^2 and 0.206537, 0.086898, 0.001559, 0.000426 at t = 981, 501, 21, 1",
        )


def test_entropy_differences_telescope(evidence: Record) -> None:
    schedule = make_schedule(STABLE_DIFFUSION, 50)
    step = torch.arange(50)
    noising_variance = 1 - schedule.alpha(step) / schedule.alpha_previous(step)
    variance = standard_deviation(schedule, step, eta=1.0) ** 2
    total = (noising_variance / variance).log().sum().item() / 2
    ends = (1 - schedule.alpha(step)[0]) / (1 - schedule.alphas_cumprod[0])
    evidence(
        "entropy differences of the chain add up",
        abs(total - ends.log().item() / 2),
        1e-12,
        "sum_t log(noising / sampling variance) / 2 = log((1 - alpha_T) / (1 - alpha_0)) / 2",
    )
    evidence(
        "entropy difference of Stable Diffusion's chain at 50 steps",
        abs(total - 3.53224),
        1e-5,
        "sum_t log(noising / sampling variance) / 2 and 3.53224",
    )


def test_a_perfect_noise_prediction_gives_the_exact_posterior(evidence: Record) -> None:
    """With x_0 known, p(x_s | x_t) of eta 1 is q(x_s | x_t, x_0) of DDPM (arXiv 2006.11239)."""
    schedule = make_schedule(STABLE_DIFFUSION, 20)
    clean, noise = normal("clean"), normal("noise")
    for index in range(20):
        step = torch.tensor([index])
        alpha, previous = schedule.alpha(step).item(), schedule.alpha_previous(step).item()
        latents = math.sqrt(alpha) * clean + math.sqrt(1 - alpha) * noise
        ours = transition(schedule, step, latents, noise, eta=1.0)
        ratio = alpha / previous
        mean = math.sqrt(previous) * (1 - ratio) / (1 - alpha) * clean
        mean = mean + math.sqrt(ratio) * (1 - previous) / (1 - alpha) * latents
        evidence(
            "with x_0 known the policy's mean is DDPM's posterior",
            distance(ours.mean, mean),
            1e-5,
            "mean of p(x_s | x_t) and of q(x_s | x_t, x_0), arXiv 2006.11239, eq. 7",
        )
        assert ours.std.item() ** 2 == pytest.approx((1 - previous) / (1 - alpha) * (1 - ratio))


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_transition_preserves_the_marginal(eta: float) -> None:
    """Whatever eta, x_t = sqrt(alpha) x_0 + sqrt(1 - alpha) eps goes to the same form at s."""
    schedule = make_schedule(STABLE_DIFFUSION, 10)
    clean, noise = normal("clean"), normal("noise")
    step = torch.tensor([6])
    alpha, previous = schedule.alpha(step).item(), schedule.alpha_previous(step).item()
    latents = math.sqrt(alpha) * clean + math.sqrt(1 - alpha) * noise
    gaussian = transition(schedule, step, latents, noise, eta)
    direction = (gaussian.mean - math.sqrt(previous) * clean) / noise
    weight = direction.flatten().median().item()
    assert weight**2 + gaussian.std.item() ** 2 == pytest.approx(1 - previous, rel=1e-4)


def test_every_sample_is_at_its_own_step() -> None:
    schedule = make_schedule(STABLE_DIFFUSION, 10)
    step = torch.tensor([0, 9, 4])
    latents, prediction, cleaner = (normal(word, n=3) for word in ("x", "epsilon", "s"))
    together = transition(schedule, step, latents, prediction)
    backwards = noising(schedule, step, cleaner)
    for row in range(3):
        one = slice(row, row + 1)
        alone = transition(schedule, step[one], latents[one], prediction[one])
        assert torch.equal(together.mean[one], alone.mean)
        assert torch.equal(together.std[one], alone.std)
        back = noising(schedule, step[one], cleaner[one])
        assert torch.equal(backwards.mean[one], back.mean)
        assert torch.equal(backwards.std[one], back.std)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_log_density_is_that_of_torch(dtype: torch.dtype, evidence: Record) -> None:
    mean, x = normal("mean", n=3), normal("x", n=3, dtype=dtype)
    std = torch.tensor([0.02, 0.5, 3.0])
    each = torch.distributions.Normal(mean, std[:, None, None, None]).log_prob(x.float())
    total = log_density(x, Gaussian(mean, std), "sum")
    average = log_density(x, Gaussian(mean, std), "mean")
    assert total.dtype == average.dtype == torch.float32
    assert total.shape == average.shape == (3,)
    for reduction, ours, expected in (
        ("sum", total, each.sum(dim=(1, 2, 3))),
        ("mean", average, each.mean(dim=(1, 2, 3))),
    ):
        evidence(
            f"log densities are the normal distribution's, {reduction} over dimensions",
            distance(ours, expected),
            1e-5,
            f"log p and the {reduction} of torch.distributions.Normal.log_prob",
        )


def test_half_precision_inputs_are_computed_in_float32() -> None:
    schedule = make_schedule(STABLE_DIFFUSION, 50)
    step = torch.tensor([49])
    latents = normal("x", dtype=torch.bfloat16)
    prediction = normal("epsilon", dtype=torch.bfloat16)
    half = transition(schedule, step, latents, prediction)
    full = transition(schedule, step, latents.float(), prediction.float())
    assert half.mean.dtype == half.std.dtype == torch.float32
    assert torch.equal(half.mean, full.mean)
    back = noising(schedule, step, latents)
    assert back.mean.dtype == back.std.dtype == torch.float32


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [1, 7, 20, 50, 250])
@pytest.mark.parametrize("eta", [0.1, 1.0])
def test_every_step_has_a_finite_density(spacing: str, steps: int, eta: float) -> None:
    schedule = make_schedule(STABLE_DIFFUSION | {"timestep_spacing": spacing}, steps)
    require_stochastic(schedule, eta)
    step = torch.arange(steps)
    latents, prediction, noise = (normal(word, n=steps) for word in ("x", "epsilon", "noise"))
    gaussian = transition(schedule, step, latents, prediction, eta)
    cleaner = gaussian.sample(noise)
    assert log_density(cleaner, gaussian, "sum").isfinite().all()
    assert log_density(latents, noising(schedule, step, cleaner), "sum").isfinite().all()


@pytest.mark.parametrize(
    ("settings", "steps", "named"),
    [
        ({"set_alpha_to_one": True}, 50, "set_alpha_to_one must be false"),
        ({"steps_offset": 0}, 50, "steps_offset=1"),
        ({"steps_offset": 0, "set_alpha_to_one": True}, 50, "set_alpha_to_one must be false"),
        ({"timestep_spacing": "trailing", "set_alpha_to_one": True}, 50, "set_alpha_to_one"),
        ({"timestep_spacing": "trailing"}, 1000, "timestep_spacing must be 'leading'"),
    ],
)
def test_a_noiseless_last_step_names_the_setting(
    settings: dict[str, Any], steps: int, named: str
) -> None:
    schedule = make_schedule(STABLE_DIFFUSION | settings, steps)
    assert standard_deviation(schedule, torch.tensor([steps - 1]), 1.0).item() == 0
    with pytest.raises(ValueError, match=named) as raised:
        require_stochastic(schedule, eta=1.0)
    assert "\n" not in str(raised.value)


def test_deterministic_sampling_has_no_density() -> None:
    with pytest.raises(ValueError, match="eta must be above 0"):
        require_stochastic(make_schedule(STABLE_DIFFUSION, 50), eta=0.0)


@pytest.mark.parametrize(
    ("settings", "steps", "named"),
    [
        ({"prediction_type": "v_prediction"}, 50, "prediction_type"),
        ({"timestep_spacing": "linspace"}, 50, "timestep_spacing='linspace'"),
        ({"beta_schedule": "squaredcos_cap_v2"}, 50, "beta_schedule='squaredcos_cap_v2'"),
        ({"trained_betas": [0.1, 0.2]}, 50, "trained_betas"),
        ({"rescale_betas_zero_snr": True}, 50, "rescale_betas_zero_snr"),
        ({"thresholding": True}, 50, "thresholding"),
        ({}, 1000, "steps_offset=1"),
        ({}, 0, "sampling steps"),
        ({}, 1001, "sampling steps"),
    ],
)
def test_unsupported_schedules_name_the_setting(
    settings: dict[str, Any], steps: int, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        make_schedule(STABLE_DIFFUSION | settings, steps)


def test_the_linear_schedule_is_that_of_diffusers() -> None:
    settings = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
    expected = DDIMScheduler(**settings).alphas_cumprod
    schedule = make_schedule(settings, 10)
    torch.testing.assert_close(schedule.alphas_cumprod.float(), expected, rtol=1e-4, atol=1e-7)
