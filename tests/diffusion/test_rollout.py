"""Rollouts: what they store, that densities are of what is stored, and whose noise is whose."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from diffusion.kernel import Reduction, clean_prediction, log_density, transition
from diffusion.latent_diffusion import LatentDiffusion
from diffusion.randomness import generator
from diffusion.rollout import Trajectories, initial_latents, rollout, sample
from tests.diffusion.conftest import MakePolicy

PROMPTS = ["a fox", "an owl", "a cat", "a dog", "a fox"]


def generators(n: int = len(PROMPTS)) -> list[torch.Generator]:
    return [generator(7, "image", index) for index in range(n)]


def recompute(policy: LatentDiffusion, trajectories: Trajectories, index: int) -> torch.Tensor:
    """Log-densities of a step as a training pass computes them: from what is stored."""
    step = torch.full((len(trajectories),), index)
    latents = trajectories.latents[index]
    prediction = policy.predict_noise(latents, step, trajectories.conditioning)
    gaussian = transition(policy.schedule, step, latents, prediction.guided, policy.eta)
    return log_density(trajectories.latents[index + 1], gaussian, trajectories.reduction)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_density_of_the_stored_latent_is_reproduced_at_every_step(
    make_policy: MakePolicy, dtype: torch.dtype, eta: float
) -> None:
    policy = make_policy(dtype=dtype, eta=eta, sampling_steps=10)
    trajectories = rollout(policy, PROMPTS, generators())
    assert trajectories.latents.dtype == dtype
    assert trajectories.log_densities.dtype == torch.float32
    for index in range(10):
        difference = recompute(policy, trajectories, index) - trajectories.log_densities[index]
        assert difference.abs().max() < 1e-6


def test_density_in_other_micro_batches_differs_by_rounding_alone(policy: LatentDiffusion) -> None:
    trajectories = rollout(policy, PROMPTS, generators())
    for index in range(policy.schedule.steps):
        parts = []
        for rows in (slice(0, 2), slice(2, 3), slice(3, 5)):
            latents = trajectories.latents[index, rows]
            step = torch.full((len(latents),), index)
            conditioning = trajectories.conditioning[rows]
            guided = policy.predict_noise(latents, step, conditioning).guided
            gaussian = transition(policy.schedule, step, latents, guided, policy.eta)
            parts.append(log_density(trajectories.latents[index + 1, rows], gaussian, "mean"))
        difference = torch.cat(parts) - trajectories.log_densities[index]
        assert difference.abs().max() < 1e-5


def test_density_before_rounding_would_not_be(make_policy: MakePolicy) -> None:
    """Why it matters: in bfloat16 the density of the unrounded latent is visibly another."""
    policy = make_policy(dtype=torch.bfloat16)
    trajectories = rollout(policy, PROMPTS, generators())
    last = policy.schedule.steps - 1
    step = torch.full((len(PROMPTS),), last)
    latents = trajectories.latents[last]
    with torch.no_grad():
        prediction = policy.predict_noise(latents, step, trajectories.conditioning).guided
    gaussian = transition(policy.schedule, step, latents, prediction)
    noises = [torch.randn(5, *policy.latent_shape, generator=g)[-1] for g in generators()]
    unrounded = gaussian.sample(torch.stack(noises))
    assert torch.equal(unrounded.to(torch.bfloat16), trajectories.final)
    difference = log_density(unrounded, gaussian, "mean") - trajectories.log_densities[last]
    assert difference.abs().max() > 1e-3


def test_what_is_stored(policy: LatentDiffusion) -> None:
    trajectories = rollout(policy, PROMPTS, generators(), batch_size=2)
    n, steps, shape = len(PROMPTS), policy.schedule.steps, policy.latent_shape
    assert trajectories.prompts == PROMPTS
    assert len(trajectories) == n
    assert trajectories.conditioning.conditional.shape[0] == n
    assert torch.equal(trajectories.timesteps, policy.schedule.timesteps)
    assert trajectories.latents.shape == (steps + 1, n, *shape)
    assert trajectories.log_densities.shape == (steps, n)
    for stored in (
        trajectories.noise_predictions,
        trajectories.clean_predictions,
        trajectories.conditional_clean_predictions,
    ):
        assert stored.shape == (steps, n, *shape)
        assert not stored.requires_grad
    assert torch.equal(trajectories.final, trajectories.latents[-1])
    assert torch.equal(trajectories.latents[0], initial_latents(policy, generators()))


def test_stored_predictions_are_the_policy_s(policy: LatentDiffusion) -> None:
    trajectories = rollout(policy, PROMPTS, generators())
    for index in range(policy.schedule.steps):
        step = torch.full((len(PROMPTS),), index)
        latents = trajectories.latents[index]
        with torch.no_grad():
            prediction = policy.predict_noise(latents, step, trajectories.conditioning)
        guided = clean_prediction(policy.schedule, step, latents, prediction.guided)
        conditional = clean_prediction(policy.schedule, step, latents, prediction.conditional)
        assert torch.equal(trajectories.noise_predictions[index], prediction.guided)
        assert torch.equal(trajectories.clean_predictions[index], guided)
        assert torch.equal(trajectories.conditional_clean_predictions[index], conditional)
        assert not torch.equal(guided, conditional)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_results_do_not_depend_on_the_batch_size(policy: LatentDiffusion, batch_size: int) -> None:
    reference = rollout(policy, PROMPTS, generators(), batch_size=3)
    other = rollout(policy, PROMPTS, generators(), batch_size=batch_size)
    torch.testing.assert_close(other.latents, reference.latents, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(other.log_densities, reference.log_densities, rtol=0, atol=1e-5)
    assert other.prompts == reference.prompts


def test_every_trajectory_has_its_own_noise(policy: LatentDiffusion) -> None:
    """Same prompt, other generator: another picture. Same generator, other company: the same."""
    trajectories = rollout(policy, PROMPTS, generators())
    assert not torch.allclose(trajectories.final[0], trajectories.final[4], atol=0.1)
    order = [3, 0, 4]
    chosen = rollout(policy, [PROMPTS[i] for i in order], [generators()[i] for i in order])
    torch.testing.assert_close(chosen.latents, trajectories.latents[:, order], rtol=1e-4, atol=1e-4)


def test_a_rollout_begins_where_it_is_told_to(policy: LatentDiffusion) -> None:
    initial = initial_latents(policy, generators(1)).expand(5, *policy.latent_shape)
    trajectories = rollout(policy, PROMPTS, generators(), initial=initial, batch_size=2)
    assert torch.equal(trajectories.latents[0], initial)
    assert not torch.equal(trajectories.final[0], trajectories.final[4])
    with pytest.raises(ValueError, match="5 prompts but 4 initial latents"):
        rollout(policy, PROMPTS, generators(), initial=initial[:4])


@pytest.mark.parametrize("batch_size", [4, 5])
def test_a_start_that_is_shared_is_predicted_once(policy: LatentDiffusion, batch_size: int) -> None:
    prompts = [PROMPTS[0], PROMPTS[0], PROMPTS[1], PROMPTS[1], PROMPTS[1]]
    same = initial_latents(policy, generators(1)).expand(5, *policy.latent_shape)
    before = policy.ledger.counts()["unet_forward"]
    trajectories = rollout(policy, prompts, generators(), initial=same, batch_size=batch_size)
    spent = policy.ledger.counts()["unet_forward"] - before
    # A batch does not know the one before it.
    starts = {4: [0, 0, 2, 2, 4], 5: [0, 0, 2, 2, 2]}[batch_size]
    assert trajectories.starts.tolist() == starts
    assert spent == 2 * (len(set(starts)) + 5 * (policy.schedule.steps - 1))
    with torch.no_grad():
        every = policy.predict_noise(same, torch.zeros(5).long(), trajectories.conditioning)
    found = trajectories.noise_predictions[0]
    torch.testing.assert_close(found, every.guided, rtol=1e-4, atol=1e-4)
    clean = clean_prediction(policy.schedule, torch.zeros(5).long(), same, every.conditional)
    found = trajectories.conditional_clean_predictions[0]
    torch.testing.assert_close(found, clean, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found[0], found[4], atol=1e-2)


def test_starts_that_differ_are_each_their_own(policy: LatentDiffusion) -> None:
    assert rollout(policy, PROMPTS[:1] * 2, generators(2)).starts.tolist() == [0, 1]


def test_sampling_alone_is_the_rollout_s_end(policy: LatentDiffusion) -> None:
    trajectories = rollout(policy, PROMPTS, generators())
    finals = sample(policy, PROMPTS, generators())
    assert torch.equal(finals, trajectories.final)
    assert not torch.equal(sample(policy, PROMPTS, generators(), eta=0.5), finals)


def test_at_eta_0_only_the_initial_noise_counts(policy: LatentDiffusion) -> None:
    finals = sample(policy, ["a fox"], generators(1), eta=0.0)
    latents = initial_latents(policy, generators(1))
    conditioning = policy.encode(["a fox"])
    for index in range(policy.schedule.steps):
        step = torch.tensor([index])
        with torch.no_grad():
            prediction = policy.predict_noise(latents, step, conditioning).guided
        latents = transition(policy.schedule, step, latents, prediction, eta=0.0).mean
    torch.testing.assert_close(finals, latents)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_reductions(policy: LatentDiffusion, reduction: Reduction) -> None:
    trajectories = rollout(policy, PROMPTS[:2], generators(2), reduction=reduction)
    assert trajectories.reduction == reduction
    average = rollout(policy, PROMPTS[:2], generators(2)).log_densities
    dimensions = torch.tensor(policy.latent_shape).prod() if reduction == "sum" else 1
    torch.testing.assert_close(
        trajectories.log_densities, average * dimensions, rtol=1e-5, atol=1e-3
    )


def test_a_deterministic_policy_cannot_roll_out(make_policy: MakePolicy) -> None:
    with pytest.raises(ValueError, match="eta must be above 0"):
        rollout(make_policy(eta=0.0), PROMPTS, generators())


def test_one_generator_for_each_prompt(policy: LatentDiffusion) -> None:
    with pytest.raises(ValueError, match="5 prompts but 4 generators"):
        rollout(policy, PROMPTS, generators(4))
    with pytest.raises(ValueError, match="5 prompts but 6 generators"):
        sample(policy, PROMPTS, generators(6))


@pytest.mark.parametrize("sampled", [sample, rollout])
def test_a_chain_s_noise_is_that_of_a_draw_a_step(policy: LatentDiffusion, sampled: Any) -> None:
    """Latents whose size is a multiple of 16 do not see that all noise is drawn at once."""
    assert torch.Size(policy.latent_shape).numel() % 16 == 0
    found = sampled(policy, PROMPTS, generators())
    found = found if isinstance(found, torch.Tensor) else found.final
    sources = generators()
    draws = [
        torch.stack([torch.randn(policy.latent_shape, generator=source) for source in sources])
        for _ in range(policy.schedule.steps + 1)
    ]
    latents, conditioning = draws[0], policy.encode(PROMPTS)
    with torch.no_grad():
        for index, noise in enumerate(draws[1:]):
            step = torch.full((len(PROMPTS),), index)
            guided = policy.predict_noise(latents, step, conditioning).guided
            gaussian = transition(policy.schedule, step, latents, guided, policy.eta)
            latents = gaussian.sample(noise)
    assert torch.equal(found, latents)
