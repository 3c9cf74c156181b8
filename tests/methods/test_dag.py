"""Detailed balance, forward-looking rewards, and where DAG's gradients go."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from diffusion.kernel import log_density, noising
from diffusion.latent_diffusion import LatentDiffusion
from diffusion.rollout import Trajectories
from methods import replay, sampling
from methods.advantages import leave_one_out
from methods.dag import detailed_balance_residual
from tests.how_we_know import Record, distance, relative_distance
from tests.methods.conftest import ROUND, make_method, make_task
from tests.methods.point import PointPolicy, ddim_log_density

MakePolicy = Callable[..., LatentDiffusion]


def round_of(method: Any) -> tuple[Trajectories, torch.Tensor, torch.Tensor]:
    """Trajectories, their final rewards and the rewards of their states."""
    trajectories, terminal = sampling.sample_round(method.task, 0, method.config)
    return trajectories, terminal, method.flow.state_rewards(trajectories, terminal)


def all_transitions(method: Any, trajectories: Trajectories) -> replay.Transitions:
    """Every transition of a round, in one micro-batch."""
    steps, n = len(trajectories.timesteps), len(trajectories)
    trajectory, step = torch.arange(n).repeat(steps), torch.arange(steps).repeat_interleave(n)
    return replay.gather(method.policy, trajectories, trajectory, step)


def test_the_residual_is_zero_at_the_exact_posterior(evidence: Record) -> None:
    """Data N(m, v), F(x_t, t) = Z N(sqrt(a_t) m, a_t v + 1 - a_t), the policy Bayes' posterior."""
    policy = PointPolicy(steps=20)
    alphas, m, v, log_z = policy.schedule.alphas_cumprod, 0.7, 0.36, 1.3
    grid = [*policy.schedule.timesteps.tolist(), 0]
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)

    def marginal(alpha: torch.Tensor) -> torch.distributions.Normal:
        return torch.distributions.Normal(alpha.sqrt() * m, (alpha * v + 1 - alpha).sqrt())

    for t, s in itertools.pairwise(grid):
        x_t, x_s = torch.meshgrid(x, x, indexing="ij")
        ratio = alphas[t] / alphas[s]
        forward = torch.distributions.Normal(ratio.sqrt() * x_s, (1 - ratio).sqrt())
        before, after = marginal(alphas[t]), marginal(alphas[s])
        precision = 1 / after.variance + ratio / (1 - ratio)
        centre = (after.mean / after.variance + ratio.sqrt() * x_t / (1 - ratio)) / precision
        posterior = torch.distributions.Normal(centre, precision.rsqrt())
        delta = detailed_balance_residual(
            log_z + before.log_prob(x_t),
            log_z + after.log_prob(x_s),
            posterior.log_prob(x_s),
            forward.log_prob(x_t),
        )
        evidence(
            "DAG's residual is zero at the exact posterior",
            delta.abs().max().item(),
            1e-10,
            "log F(x_t) + l_p - l_q - log F(x_s) = 0 for data N(m, v), float64, 20 steps",
        )


def parts_of_delta(
    method: Any, trajectories: Trajectories, rewards: torch.Tensor, mean: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """l_p at a data mean (float64, written out anew), the flow network of x_t and of x_s, and the
    constants of every transition's delta, at beta = 20."""
    policy, t = method.policy, all_transitions(method, trajectories)
    steps = policy.schedule.steps
    x = trajectories.latents
    log_policy = [ddim_log_density(policy, mean, k, x[k], x[k + 1]) for k in range(steps)]
    log_noising = log_density(t.latents, noising(policy.schedule, t.step, t.next_latents), "mean")
    network = method.flow.network
    residual = network(t.latents, t.step, t.conditioning)
    inner = t.step + 1 < steps
    next_step = (t.step + 1).clamp(max=steps - 1)
    following = network(t.next_latents, next_step, t.conditioning) * inner
    reward, next_reward = method.flow.transition_rewards(t, rewards)
    constant = 20.0 * (reward - next_reward) - log_noising
    return torch.cat(log_policy), residual, following, constant


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("detach", [False, True])
def test_gradients_of_detailed_balance(fresh: bool, detach: bool, evidence: Record) -> None:
    """The policy's comes through l_p and the regulariser, the flow's through both flows, and none
    through rewards, whether cached or predicted anew."""
    policy = PointPolicy()
    options = {"fresh_rewards": fresh, "detach_next_flow": detach}
    method: Any = make_method("dag", make_task(policy), **ROUND, **options)
    trajectories, _, rewards = round_of(method)
    with torch.no_grad():
        policy.mean.add_(0.1)  # away from the rollout, so that the regulariser counts
    t = all_transitions(method, trajectories)
    balance, regulariser = method.losses(t, rewards, beta=20.0)
    (balance + 0.7 * regulariser).mean().backward()

    at = policy.mean.detach().double().requires_grad_()
    log_policy, residual, following, constant = parts_of_delta(method, trajectories, rewards, at)
    delta = (residual - following + log_policy + constant).detach()
    evidence(
        "DAG's loss is its equation's",
        distance(balance, delta.square()),
        1e-4,
        "delta^2 and (log F(x_t) + l_p - l_q - log F(x_s))^2 written out in float64",
    )

    alpha = policy.schedule.alpha(t.step)
    slope = (1 - alpha).sqrt() * alpha.sqrt() / (alpha * policy.spread**2 + 1 - alpha)
    shift = policy.mean.detach().double().squeeze()
    of_regulariser = (slope.square().mean() * 2 * shift) / 3
    expected = torch.autograd.grad((2 * delta * log_policy).mean(), at)[0].squeeze()
    assert policy.mean.grad is not None
    gradient = policy.mean.grad.double().squeeze()
    evidence(
        "DAG's gradient for the policy is its equation's",
        relative_distance(gradient, expected + 0.7 * of_regulariser),
        1e-4,
        "grad (delta^2 + 0.7 L_reg) and 2 delta grad l_p + 0.7 grad L_reg in float64, relative",
    )

    through = residual if detach else residual - following
    flow = list(method.flow.network.parameters())
    flow_expected = torch.autograd.grad((2 * delta * through).mean(), flow)
    for parameter, other in zip(flow, flow_expected, strict=True):
        assert parameter.grad is not None
        evidence(
            "DAG's gradient for the flow is its equation's",
            relative_distance(parameter.grad, other),
            1e-4,
            "grad delta^2 and 2 delta grad (f(x_t) - f(x_s)), relative",
        )


def test_each_loss_of_dag_kl_trains_its_own_network(evidence: Record) -> None:
    policy = PointPolicy()
    method: Any = make_method("dag-kl", make_task(policy), **ROUND)
    trajectories, _, rewards = round_of(method)
    losses = method.losses(all_transitions(method, trajectories), rewards, beta=20.0)
    flow = list(method.flow.network.parameters())
    for name, trained, untouched in (
        ("flow_loss", flow, [policy.mean]),
        ("policy_loss", [policy.mean], flow),
    ):
        of_trained = torch.autograd.grad(
            losses[name].sum(), trained, retain_graph=True, allow_unused=True
        )
        of_untouched = [
            parameter
            for parameter in untouched
            if losses[name].requires_grad
            and torch.autograd.grad(
                losses[name].sum(), [parameter], retain_graph=True, allow_unused=True
            )[0]
            is not None
        ]
        assert all(g is not None and g.abs().max() > 0 for g in of_trained), name
        evidence(
            "DAG-KL: gradients of a loss in the other's network",
            len(of_untouched),
            0,
            "parameters of the policy that the flow loss reaches, and the other way round",
        )


def test_dag_kl_moves_the_policy_as_detailed_balance_does() -> None:
    """On-policy, the advantages are -delta shifted and scaled, so both gradients point alike."""

    def red(images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return images[:, 0].mean(dim=(1, 2))

    gradients = []
    for name in ("dag", "dag-kl"):
        policy = PointPolicy()
        task = make_task(policy, images=2048, reward=red)
        method: Any = make_method(name, task, prompts_per_round=2, images_per_prompt=512)
        trajectories, _, rewards = round_of(method)
        losses = method.losses(all_transitions(method, trajectories), rewards, beta=200.0)
        loss = losses[0] if name == "dag" else losses["policy_loss"]
        gradients.append(torch.autograd.grad(loss.mean(), policy.mean)[0].flatten())
    assert torch.cosine_similarity(gradients[0], gradients[1], dim=0) > 0.9


def test_terminal_flow_is_the_reward_alone() -> None:
    method: Any = make_method("dag", make_task(PointPolicy()), **ROUND)
    trajectories, terminal, rewards = round_of(method)
    t = all_transitions(method, trajectories)
    with torch.no_grad():
        method.flow.network.constant.fill_(1000.0)
        log_flow, next_log_flow = method.flow.log_flows(t, rewards, beta=20.0)
    torch.testing.assert_close(next_log_flow[-8:], 20.0 * terminal)
    assert next_log_flow[:-8].min() > 500 and log_flow.min() > 500


def test_rewards_of_states_are_those_of_the_predicted_pictures() -> None:
    method: Any = make_method("dag", make_task(PointPolicy()), **ROUND)
    trajectories, terminal, rewards = round_of(method)
    reward = method.task.reward
    assert torch.equal(rewards[-1], terminal)
    for k in range(5):
        pictures = trajectories.conditional_clean_predictions[k].sigmoid()
        torch.testing.assert_close(rewards[k], reward(pictures, trajectories.prompts))
    # At the rollout's weights, predicting anew is the same as remembering.
    t = all_transitions(method, trajectories)
    cached = method.flow.transition_rewards(t, rewards)
    method.flow.config = method.config.model_copy(update={"fresh_rewards": True})
    for a, b in zip(cached, method.flow.transition_rewards(t, rewards), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=5e-3)


def test_clean_predictions_are_of_the_branch_asked_for() -> None:
    for option in ("conditional", "guided"):
        method: Any = make_method("dag", make_task(PointPolicy()), clean_prediction=option, **ROUND)
        trajectories, terminal, _ = round_of(method)
        grey = torch.zeros_like(trajectories.clean_predictions)
        if option == "conditional":
            trajectories = dataclasses.replace(trajectories, conditional_clean_predictions=grey)
        else:
            trajectories = dataclasses.replace(trajectories, clean_predictions=grey)
        rewards = method.flow.state_rewards(trajectories, terminal)
        assert rewards[:-1].max() < 1e-3 < terminal.min()


@pytest.mark.parametrize("option", ["conditional", "guided", "untrained"])
def test_a_start_that_is_shared_is_scored_once(option: str, tiny_policy: MakePolicy) -> None:
    """And has the reward that it would have if it were scored with every trajectory."""
    shared = {"initial_noise": "shared", "clean_prediction": option, **ROUND}
    method: Any = make_method("dag", make_task(tiny_policy()), **shared)
    trajectories, terminal, rewards = round_of(method)
    assert trajectories.starts.tolist() == [0, 0, 0, 0, 4, 4, 4, 4]
    apart = dataclasses.replace(trajectories, starts=torch.arange(8))
    before = method.policy.ledger.counts()["reward_calls"]
    every = method.flow.state_rewards(apart, terminal)
    assert method.policy.ledger.counts()["reward_calls"] - before == 8 * len(apart.timesteps)
    torch.testing.assert_close(rewards, every, rtol=1e-4, atol=1e-5)
    assert rewards[0].unique().numel() == 2


@pytest.mark.parametrize("fresh", [False, True])
def test_the_untrained_model_s_clean_predictions_stay_as_the_policy_moves(fresh: bool) -> None:
    rewards = {}
    for option in ("conditional", "untrained"):
        policy = PointPolicy()
        method: Any = make_method(
            "dag", make_task(policy), clean_prediction=option, fresh_rewards=fresh, **ROUND
        )
        found = []
        trajectories, terminal, _ = round_of(method)
        t = all_transitions(method, trajectories)
        for move in (0.0, 0.5):
            with torch.no_grad():
                policy.mean.add_(move)
            moved, _ = sampling.sample_round(method.task, 0, method.config)
            same = dataclasses.replace(moved, latents=trajectories.latents)
            states = method.flow.state_rewards(same, terminal)
            found.append(torch.stack(method.flow.transition_rewards(t, states)))
        rewards[option] = found
    torch.testing.assert_close(rewards["untrained"][0], rewards["untrained"][1])
    torch.testing.assert_close(rewards["untrained"][0], rewards["conditional"][0])
    assert (rewards["conditional"][0] - rewards["conditional"][1]).abs().max() > 1e-2


def test_beta_rises_over_the_first_half() -> None:
    def betas(**options: Any) -> list[float]:
        method: Any = make_method("dag", make_task(PointPolicy(), images=64), **ROUND, **options)
        return [method.flow.beta(k, 8) for k in range(8)]

    assert betas(beta=8.0, beta_anneal_from=0) == [0, 2, 4, 6, 8, 8, 8, 8]
    assert betas(beta=8.0, beta_anneal_from=1) == [2, 4, 6, 8, 8, 8, 8, 8]
    assert betas(beta=8.0, beta_anneal_share=1.0, beta_anneal_from=0) == list(range(8))
    assert betas(beta=8.0, beta_anneal="constant") == [8] * 8
    assert betas(beta=8.0, beta_anneal="constant", reduction="sum") == [96] * 8
    assert betas(beta=24.0, beta_anneal="constant", beta_unit="sum") == [2] * 8
    assert betas(beta=8.0, beta_anneal="constant", beta_unit="sum", reduction="sum") == [8] * 8


def test_the_reward_unit_is_fixed_by_the_first_round() -> None:
    method: Any = make_method("dag", make_task(PointPolicy()), reward_unit="initial_std", **ROUND)
    trajectories, terminal, rewards = round_of(method)
    assert float(rewards[-1].mean()) == pytest.approx(0, abs=1e-5)
    assert float(rewards[-1].std(correction=0)) == pytest.approx(1, abs=1e-4)
    again = method.flow.state_rewards(trajectories, terminal + 1.0)
    expected = rewards[-1] + 1.0 / terminal.std(correction=0)
    torch.testing.assert_close(again[-1], expected, rtol=1e-4, atol=1e-3)
    constant: Any = make_method("dag", make_task(PointPolicy()), reward_unit="initial_std", **ROUND)
    constant.flow.fix_unit(torch.full((8,), 3.0))
    assert torch.equal(constant.flow.in_unit(torch.full((8,), 3.0)), torch.zeros(8))


def test_timesteps_that_share_a_pass_keep_a_baseline_each() -> None:
    """Passes of one timestep and passes of all of them move the networks alike."""
    states = []
    for size in (4, 16):
        method: Any = make_method(
            "dag-kl", make_task(PointPolicy()), micro_batch_size=size, updates_per_round=2, **ROUND
        )
        torch.nn.init.constant_(method.flow.network.constant, 0.3)
        method.step()
        states.append([p.detach().clone() for p in method.flow.network.parameters()])
        states[-1] += [p.detach().clone() for p in method.policy.parameters()]
    for one, other in zip(*states, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_leave_one_out_by_hand(evidence: Record) -> None:
    g = [0.3, -1.0, 2.5, 0.1]
    baselines = [(sum(g) - value) / 3 for value in g]
    squares = [(value - b) ** 2 for value, b in zip(g, baselines, strict=True)]
    expected = [
        (value - b) / math.sqrt((sum(squares) - square) / 3)
        for value, b, square in zip(g, baselines, squares, strict=True)
    ]
    actual = leave_one_out(torch.tensor(g), clip=5.0)
    evidence(
        "DAG-KL's advantages are those worked out by hand",
        distance(actual, torch.tensor(expected)),
        1e-6,
        "(g_i - b_i) / sqrt(mean_j (g_j - b_j)^2), b_i the mean of the others, j not i",
    )
    outlier = torch.linspace(-1, 1, 41)
    outlier[40] = 50.0
    assert leave_one_out(outlier, clip=5.0)[40] == 5.0
    assert leave_one_out(torch.tensor([3.0]), clip=5.0).tolist() == [0.0]
    assert leave_one_out(torch.full((4,), 2.0), clip=5.0).abs().max() == 0.0


def test_the_deviation_of_a_round_keeps_the_proportion_of_its_timesteps() -> None:
    """At each timestep the residuals of a first round spread as its rewards do; one deviation over
    all of them leaves that so, one for each timestep makes all alike."""
    task = make_task(PointPolicy())
    round_options = {**ROUND, "baseline_group": "timestep", "micro_batch_size": 8}
    method: Any = make_method("dag-kl", task, advantage_scale="round", **round_options)
    trajectories, _, rewards = round_of(method)
    beta, steps, n = 3.0, len(trajectories.timesteps), len(trajectories)
    t = all_transitions(method, trajectories)
    residuals = method.residual(t, t.log_density, rewards, beta).detach().view(steps, n)
    centred = residuals - residuals.mean(1, keepdim=True)
    expected = float(centred.square().mean().sqrt())
    method.deviation = method.round_deviation(trajectories, rewards, beta)
    assert method.deviation == pytest.approx(expected, rel=1e-4)

    by_round = torch.stack([leave_one_out(row, 1e9, method.deviation) for row in residuals])
    torch.testing.assert_close(by_round, centred * n / (n - 1) / expected, rtol=1e-3, atol=1e-4)
    spreads = centred.std(1)
    assert spreads.max() > 1.5 * spreads.min()


def test_the_round_s_scale_needs_the_rollout_s_rewards() -> None:
    with pytest.raises(ValueError, match="needs the rollout's rewards"):
        make_method(
            "dag-kl", make_task(PointPolicy()), advantage_scale="round", fresh_rewards=True, **ROUND
        )
