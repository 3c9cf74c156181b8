"""Residual detailed balance: zero at the exact solution, and gradients where they belong."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from diffusion.kernel import Gaussian, log_density, noising, standard_deviation, transition
from diffusion.ledger import Ledger
from diffusion.mixture import MixturePolicy, load_mixture
from diffusion.rollout import rollout
from methods import replay
from methods.dag import detailed_balance_residual
from tests.methods.conftest import make_method, make_task
from tests.methods.point import PointPolicy

BETA = 1.5


def linear(points: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    return points[:, 0]


def mixture_task(policy: MixturePolicy, **fields: Any):
    fields = {"reward": linear, "reward_gradient": linear, "prompts": ("a",), **fields}
    return make_task(policy, images=16, **fields)


ROUND = {"prompts_per_round": 1, "images_per_prompt": 8, "reduction": "sum", "beta_unit": "sum"}


def coefficients(policy: PointPolicy) -> list[float]:
    """c of each state, noisiest first, in log F(x_t) = c_t r(x_t) + const for r(x) = sum of x.

    Means of the chain are affine in x_t, x_s = a_t x_t + b_t, so E[exp(c_s r(x_s)) | x_t] is
    log-linear with c_t = a_t c_s; the clean end has beta.
    """
    schedule, found = policy.schedule, [BETA]
    for index in reversed(range(schedule.steps)):
        step = torch.tensor([index])
        slope = affine(policy, step)[0]
        found.append(found[-1] * slope)
    return found[::-1]


def affine(policy: PointPolicy, step: torch.Tensor) -> tuple[float, float]:
    """Slope of the base chain's mean, and its standard deviation."""
    means = []
    for value in (0.0, 1.0):
        x = torch.full((1, *policy.latent_shape), value)
        noise = policy.predict_noise(x, step, policy.encode(["a"])).guided
        means.append(transition(policy.schedule, step, x, noise).mean.flatten()[0].item())
    return means[1] - means[0], standard_deviation(policy.schedule, step, 1.0).item()


def test_the_residual_is_zero_at_the_exact_solution() -> None:
    """On a linear chain with a linear reward the tilted transition is the base one, moved by
    sigma^2 c_s, and F is known: p_base exp(beta r) is reached with delta = 0 at every step."""
    policy = PointPolicy(steps=8)
    c = coefficients(policy)
    d = torch.Size(policy.latent_shape).numel()
    constant = 0.0
    for index in reversed(range(policy.schedule.steps)):
        step = torch.full((32,), index)
        x_t = torch.randn(32, *policy.latent_shape, generator=torch.Generator().manual_seed(index))
        noise = policy.predict_noise(x_t, step, policy.encode(["a"] * 32)).guided.detach()
        base = transition(policy.schedule, step, x_t, noise)
        sigma = float(base.std[0])
        tilted = Gaussian(base.mean + sigma**2 * c[index + 1], base.std)
        x_s = tilted.sample(torch.randn(x_t.shape, generator=torch.Generator().manual_seed(99)))
        _, deviation = affine(policy, step[:1])
        at_zero = base.mean - affine(policy, step[:1])[0] * x_t
        next_constant = constant
        constant += c[index + 1] * float(at_zero.flatten(1).sum(1)[0])
        constant += 0.5 * d * (deviation * c[index + 1]) ** 2
        delta = detailed_balance_residual(
            c[index] * x_t.flatten(1).sum(1) + constant,
            c[index + 1] * x_s.flatten(1).sum(1) + next_constant,
            log_density(x_s, tilted, "sum"),
            log_density(x_s, base, "sum"),
        )
        assert delta.abs().max() < 2e-3, index  # fp32 densities; float64 would be 1e-12


def test_the_noising_kernel_leaves_a_residual_there_that_the_base_one_does_not() -> None:
    """With beta 0 and F constant the untrained model is the solution of residual detailed balance,
    while DAG's balance against q(x_t | x_s) is off: its target is flat."""
    policy = PointPolicy(steps=8)
    generators = [torch.Generator().manual_seed(seed) for seed in range(16)]
    trajectories = rollout(policy, ["a"] * 16, generators, "sum")
    sizes = {}
    for name in ("residual-db", "dag"):
        method: Any = make_method(name, make_task(policy), reduction="sum", beta_unit="sum")
        order = replay.update_orders(
            torch.Generator().manual_seed(0), 16, 8, updates=1, micro_batch_size=16
        )[0]
        deltas = []
        for trajectory, step in order.batches:
            t = replay.gather(policy, trajectories, trajectory, step)
            log_policy, _ = replay.current_density(policy, t, "sum")
            deltas.append((log_policy - method.log_reference(t)).detach().abs().max())
        sizes[name] = float(torch.stack(deltas).max())
    assert sizes["residual-db"] == 0.0
    assert sizes["dag"] > 0.1


@pytest.mark.parametrize("variance", ["posterior", "learned"])
def test_the_reference_is_the_untrained_transition(variance: Any) -> None:
    policy = load_mixture(ledger=Ledger(), sampling_steps=5, variance=variance)
    method: Any = make_method("residual-db", mixture_task(policy), **ROUND)
    generators = [torch.Generator().manual_seed(seed) for seed in range(8)]
    trajectories = rollout(policy, ["a"] * 8, generators, "sum")
    policy.load_state_dict({k: 1.1 * v for k, v in policy.state_dict().items()})
    t = replay.gather(policy, trajectories, torch.arange(8), torch.arange(8) % 5)
    reference = method.log_reference(t)
    assert not reference.requires_grad
    # The rollout was of the untrained model, so its densities are the reference's.
    assert torch.allclose(reference, t.log_density, atol=1e-4)
    log_policy, _ = replay.current_density(policy, t, "sum")
    assert not torch.allclose(log_policy, reference, atol=1e-2)


def test_dags_reference_is_the_noising_kernel() -> None:
    policy = load_mixture(ledger=Ledger(), sampling_steps=5)
    method: Any = make_method("dag", mixture_task(policy), **ROUND)
    generators = [torch.Generator().manual_seed(seed) for seed in range(8)]
    trajectories = rollout(policy, ["a"] * 8, generators, "sum")
    t = replay.gather(policy, trajectories, torch.arange(8), torch.arange(8) % 5)
    q = noising(policy.schedule, t.step, t.next_latents)
    normal = torch.distributions.Normal(q.mean.double(), q.std.double().unsqueeze(1))
    expected = normal.log_prob(t.latents.double()).sum(1)
    assert torch.allclose(method.log_reference(t).double(), expected, atol=1e-4)


def test_gradients_reach_the_policy_and_the_flow_and_no_reward() -> None:
    policy = load_mixture(ledger=Ledger(), sampling_steps=5, variance="learned")

    def reward(points: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        assert not torch.is_grad_enabled() and not points.requires_grad
        return points[:, 0]

    method: Any = make_method("residual-db", mixture_task(policy, reward=reward), **ROUND)
    with torch.no_grad():  # a zero last layer would hide the layers before it
        for parameter in method.flow.network.parameters():
            parameter.add_(0.1)
    before = {k: v.clone() for k, v in policy.state_dict().items()}
    untrained = [p.clone() for p in policy._untrained.parameters()]
    flow = [p.detach().clone() for p in method.flow.network.parameters()]
    method.step()
    changed = [not torch.equal(before[k], v) for k, v in policy.state_dict().items()]
    assert all(changed)
    kept = zip(untrained, policy._untrained.parameters(), strict=True)
    assert all(torch.equal(old, new) for old, new in kept)
    moved = zip(flow, method.flow.network.parameters(), strict=True)
    assert all(not torch.equal(old, new) for old, new in moved)


def test_on_policy_the_gradient_of_the_square_is_twice_that_of_the_divergence() -> None:
    """Test 4 of the six: a scalar policy N(mu, 1) against N(0, 1) exp(beta x) at the right F."""
    mu, beta, n = 0.4, 0.7, 400_000
    x = mu + torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mean = torch.tensor(mu, dtype=torch.float64, requires_grad=True)
    log_policy = -0.5 * (x - mean).square()
    log_base = -0.5 * x.square()
    delta = detailed_balance_residual(torch.tensor(0.5 * beta**2), beta * x, log_policy, log_base)
    (gradient,) = torch.autograd.grad(delta.square().mean(), mean)
    # KL(N(mu, 1) || N(beta, 1)) = (mu - beta)^2 / 2
    assert float(gradient) == pytest.approx(2 * (mu - beta), abs=0.01)


def test_targets_are_in_summed_units() -> None:
    policy = load_mixture(ledger=Ledger(), sampling_steps=5)
    for name, formula in (("dag", "exp(beta r)"), ("residual-db", "p_base exp(beta r)")):
        for unit, joint in (("sum", 3.0), ("mean", 6.0)):
            method = make_method(name, mixture_task(policy), beta=3.0, beta_unit=unit)
            assert str(method.target) == formula
            assert method.target.beta == joint
    scaled: Any = make_method(
        "residual-db", mixture_task(policy), beta=3.0, beta_unit="sum", reward_unit="initial_std"
    )
    scaled.flow.fix_unit(torch.tensor([0.0, 4.0]))
    assert scaled.target.beta == pytest.approx(1.5)


def test_who_declares_what() -> None:
    policy = load_mixture(ledger=Ledger(), sampling_steps=5)
    found = {
        name: str(make_method(name, mixture_task(policy)).target)
        for name in ("base", "best-of-n", "ddpo", "ddpo-sf", "alignprop", "dag-kl")
    }
    none = "none, it maximises"
    assert found.pop("base") == "p_base" and found.pop("dag-kl") == "exp(beta r)"
    assert set(found.values()) == {none}
