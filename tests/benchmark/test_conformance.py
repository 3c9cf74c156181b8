"""Every check of the conformance fails where it should."""

from __future__ import annotations

from typing import Any

import pytest

from benchmark.conformance import hard_rewards as on_hard_rewards
from benchmark.conformance import methods as on_methods
from benchmark.conformance import rewards as on_rewards
from benchmark.conformance import runs as on_runs
from benchmark.conformance import together as on_groups
from benchmark.conformance.checks import Check, judge
from benchmark.conformance.methods import METHOD_CHECKS
from benchmark.conformance.rewards import REWARD_CHECKS
from benchmark.conformance.trial import Tint, Trial
from methods.ddpo_sf import DdpoSf
from tests.benchmark import broken

METHODS: list[tuple[type[Any], Check[Trial], str]] = [
    (broken.Nameless, on_methods.declarations, "'title' is not declared"),
    (broken.Undocumented, on_methods.declarations, "'secret' has no description"),
    (broken.UndeclaredNeed, on_methods.needs, "undeclared need, a sampler with eta 0: ValueError"),
    (broken.UncheckedNeed, on_methods.needs, "starts in spite of its declared need"),
    (broken.OverBudget, on_methods.budget, "8 images more than the budget"),
    (broken.LateMetrics, on_methods.metrics, "first metrics are not reward_mean"),
    (broken.BadMetric, on_methods.metrics, "metric 'gain' is nan"),
    (broken.ChangesFrozen, on_methods.trained_weights, "frozen decoder changed"),
    (broken.Unfreezes, on_methods.trained_weights, "frozen unet.inner has a gradient"),
    (broken.TrainsNothing, on_methods.trained_weights, "changed no trainable weight"),
    (broken.FollowsReference, on_methods.reward_gradient, "differentiates the reference path"),
    (broken.IdleGradient, on_methods.reward_gradient, "asks for no gradient"),
    (broken.MovesBeforeUpdate, on_methods.ratio_float32, "ratio is not 1"),
    (broken.StaleRound, on_methods.ratio_float32, "ratio is not 1"),
    (broken.StaleDensity, on_methods.ratio_float32, "ratio is not 1"),
    (broken.OtherPrecision, on_methods.ratio_bfloat16, "ratio is not 1"),
    (broken.MeanOfBatch, on_methods.accumulation, "depends on micro_batch_size"),
    (broken.ForgetsMoments, on_runs.resuming, "differs"),
    (broken.HidesState, on_runs.resuming, "metric 'steps' differs"),
    (broken.ObjectState, on_runs.resuming, "state /source is no tensor"),
    (broken.CountsPrompts, on_runs.evaluation, "metric 'encoded' differs"),
    (broken.GlobalNoise, on_runs.determinism, "draws from a global random generator"),
    (broken.DeafToSeed, on_runs.determinism, "another seed gives the same run"),
    (broken.Miscounts, on_runs.counting, "images: the ledger has 18, and there were 16"),
    (broken.ForgetsSteps, on_runs.counting, "optimizer_steps: the ledger has 0"),
    (broken.OwnShareAlone, on_groups.two_processes, "end with different weights"),
    (broken.MeanOfShare, on_groups.two_processes, "another gradient than one"),
    (broken.FailsInOneProcess, on_groups.two_processes, "RuntimeError: out of memory"),
    (broken.JoinsGroups, on_groups.two_processes, "it starts in a group of two"),
    (broken.Truncates, on_hard_rewards.whole_numbers, "differs"),
    (broken.DividesBySpread, on_hard_rewards.near_constant, "ZeroDivisionError"),
    (broken.GoesOn, on_hard_rewards.failing_rewards, "goes on when the reward gives NotANumber"),
    (broken.ChangesThenFails, on_hard_rewards.failing_rewards, "changes weights when the reward"),
]
REWARDS: list[tuple[type[Tint], Check[Any], str]] = [
    (broken.Unitless, on_rewards.declarations, "'unit' is not declared"),
    (broken.Cost, on_rewards.declarations, "give a cost a minus sign"),
    (broken.WrongRange, on_rewards.scores, "outside its range (0.0, 0.01)"),
    (broken.GivesNaN, on_rewards.scores, "nan"),
    (broken.PerPixel, on_rewards.scores, "returned shape [3, 64, 64] for 3 images"),
    (broken.Fails, on_rewards.scores, "RuntimeError: out of paint"),
    (broken.Washed, on_rewards.input_range, "black and white do not arrive as 0 and 1"),
    (broken.InTraining, on_rewards.evaluation_mode, "Sequential runs in training mode"),
    (broken.Unfrozen, on_rewards.evaluation_mode, "weight of Linear takes a gradient"),
    (broken.Random, on_rewards.determinism, "draws from a global random generator"),
    (broken.Drifts, on_rewards.determinism, "scores change from one call to the next"),
    (broken.BatchDependent, on_rewards.batches, "depends on the pictures beside it"),
    (broken.InPlace, on_rewards.inputs, "changes its inputs"),
    (broken.ReadsPrompts, on_rewards.prompts, "declare needs_prompt"),
    (broken.IgnoresPrompts, on_rewards.prompts, "other prompts give the same scores"),
    (broken.HalfPrecise, on_rewards.precision, "autocast changes the scores"),
    (broken.Detached, on_rewards.gradient, "no gradient to the pictures"),
    (broken.HiddenGradient, on_rewards.gradient, "declares no gradient, and"),
    (broken.OtherFormula, on_rewards.agreement, "is not the reference's formula"),
    (broken.WrongGradient, on_rewards.finite_differences, "does not point where the score rises"),
    (broken.Unchecked, on_rewards.bad_inputs, "instead of RewardInputError for three dim"),
]


@pytest.mark.parametrize(
    ("kind", "check", "message"), METHODS, ids=[kind.__name__ for kind, _, _ in METHODS]
)
def test_a_broken_method_fails(kind: type[Any], check: Check[Trial], message: str) -> None:
    outcome = judge(check, Trial(kind))
    assert outcome.state == "FAILED"
    assert message in str(outcome) and "\n" not in str(outcome)


@pytest.mark.parametrize(
    ("kind", "check", "message"), REWARDS, ids=[kind.__name__ for kind, _, _ in REWARDS]
)
def test_a_broken_reward_fails(kind: type[Tint], check: Check[Any], message: str) -> None:
    outcome = judge(check, kind())
    assert outcome.state == "FAILED"
    assert message in str(outcome) and "\n" not in str(outcome)


def test_every_check_has_failed() -> None:
    assert {check.name for _, check, _ in METHODS} == {check.name for check in METHOD_CHECKS}
    assert {check.name for _, check, _ in REWARDS} == {check.name for check in REWARD_CHECKS}


def test_what_the_broken_ones_are_made_from_passes() -> None:
    for check in METHOD_CHECKS:
        assert judge(check, Trial(DdpoSf)).state == "passed", check.name
    for each in REWARD_CHECKS:
        assert judge(each, Tint()).state == "passed", each.name
