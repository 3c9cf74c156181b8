"""AlignProp: which steps carry gradient, and the gradient they carry."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from diffusion.kernel import transition
from methods.alignprop import AlignPropConfig, gradient_steps, sample_with_gradient
from tests.how_we_know import Record
from tests.methods.conftest import ROUND, make_method, make_task
from tests.methods.point import PointPolicy

STEPS, MANY = 50, 4000
MASKS = {
    "full": [1, 1, 1, 1, 1],
    "last-2": [0, 0, 0, 1, 1],
    "gaps": [1, 0, 1, 0, 1],
    "linear part only": [1, 0, 0, 0, 0],
}


def drawn(**options: Any) -> torch.Tensor:
    """Steps with gradient of many images, float ``[STEPS, MANY]``."""
    source = torch.Generator().manual_seed(0)
    return gradient_steps(AlignPropConfig(**options), STEPS, MANY, source).float()


def test_full_and_last_k() -> None:
    assert drawn(truncation="full").all()
    for k in (1, 2, 50):
        carries = drawn(truncation="last-k", last_steps=k)
        assert not carries[: STEPS - k].any() and carries[STEPS - k :].all()


def test_random_per_step_keeps_step_i_with_its_own_probability(evidence: Record) -> None:
    carries = drawn(truncation="random-per-step")
    expected = (torch.arange(STEPS) + 1) / (STEPS + 1)
    evidence(
        "AlignProp's random-per-step keeps a step as often as it should",
        float((carries.mean(1) - expected).abs().max()),
        0.032,
        "share of 4000 images and (i + 1) / (T + 1), the largest of 50 steps; 4 standard errors",
    )
    assert float(carries.sum(0).mean()) == pytest.approx(25, abs=0.3)
    # Drawn anew at every step: what is kept has gaps.
    switches = (carries[1:] != carries[:-1]).sum(0)
    assert (switches > 1).float().mean() > 0.99
    # Neighbouring steps are independent.
    together = (carries[24] * carries[25]).mean()
    assert float(together) == pytest.approx(float(expected[24] * expected[25]), abs=0.04)


@pytest.mark.parametrize("threshold", ["gaussian", "uniform"])
def test_random_per_trajectory_has_one_threshold(threshold: str) -> None:
    carries = drawn(truncation="random-per-trajectory", threshold=threshold)
    assert (carries.diff(dim=0) >= 0).all(), "a step without gradient after one with"
    assert carries[-1].all()
    first = STEPS - carries.sum(0)
    if threshold == "gaussian":
        assert float(first.mean()) == pytest.approx(42, abs=0.4)
        assert 4 < float(first.std()) < 5.2
    else:
        assert float(first.mean()) == pytest.approx(24.5, abs=1)
        assert first.min() == 0 and first.max() == 49


def chain(
    policy: PointPolicy,
    mean: torch.Tensor,
    noise: list[torch.Tensor],
    carries: list[int],
    frozen: list[torch.Tensor] | None,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Final latents at a data mean, with the noise predictions of steps that carry no gradient
    held at ``frozen``; also the predictions made."""
    latents, predictions = noise[0], []
    for index in range(policy.schedule.steps):
        step = torch.full((len(latents),), index)
        with torch.no_grad():
            policy.mean.copy_(mean)
            made = policy.predict_conditional_noise(latents, step, policy.encode(["a"]))
        used = made if frozen is None or carries[index] else frozen[index]
        predictions.append(made)
        latents = transition(policy.schedule, step, latents, used, policy.eta).sample(
            noise[index + 1]
        )
    return latents, predictions


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("name", MASKS)
def test_gradient_through_the_chain(name: str, eta: float, evidence: Record) -> None:
    """The latents are linear in the mean, so that finite differences are exact but for rounding;
    truncation holds noise predictions, not latents."""
    policy, carries = PointPolicy(eta=eta), MASKS[name]
    mask = torch.tensor(carries, dtype=torch.bool).unsqueeze(1).expand(-1, 2)

    def sources() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in (3, 4)]

    generators = sources()
    noise = [
        torch.stack([torch.randn(policy.latent_shape, generator=g) for g in generators])
        for _ in range(6)
    ]
    weight = torch.tensor([1.0, -2.0, 0.5]).view(1, 3, 1, 1)
    latents = sample_with_gradient(policy, ["a", "b"], sources(), mask)
    (weight * latents).mean().backward()
    assert policy.mean.grad is not None

    base, frozen = chain(policy, torch.zeros(3, 1, 1), noise, carries, None)
    torch.testing.assert_close(latents.detach(), base)
    for channel in range(3):
        shift = torch.zeros(3, 1, 1)
        shift[channel] = 0.5
        higher, _ = chain(policy, shift, noise, carries, frozen)
        lower, _ = chain(policy, -shift, noise, carries, frozen)
        difference = float((weight * (higher.double() - lower.double())).mean())
        assert abs(difference) > 1e-4
        evidence(
            "AlignProp's gradient through the chain, each truncation",
            abs(float(policy.mean.grad[channel]) / difference - 1),
            2e-3,
            "d x_0 / d theta and finite differences, predictions without gradient held; relative",
        )


def test_images_without_gradient_are_left_out() -> None:
    policy = PointPolicy()
    mask = torch.zeros(5, 3, dtype=torch.bool)
    mask[2:, 1] = True
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    latents = sample_with_gradient(policy, ["a"] * 3, generators, mask)
    for image, expected in enumerate((False, True, False)):
        value = latents[image].sum()
        gradient = torch.autograd.grad(value, policy.mean, retain_graph=True)[0]
        assert bool(gradient.abs().max() > 0) is expected


@pytest.mark.parametrize("loss", ["maximise", "target"])
def test_losses(loss: str) -> None:
    options = {"loss": loss, "loss_target": 3.0, "loss_coefficient": 0.5}
    metrics = make_method(
        "alignprop", make_task(PointPolicy()), updates_per_round=1, **options, **ROUND
    ).step()
    reward = metrics["reward_mean"]
    assert 0 < reward < 3
    expected = -reward if loss == "maximise" else 0.5 * (3.0 - reward)
    assert metrics["loss"] == pytest.approx(expected, rel=1e-5)
