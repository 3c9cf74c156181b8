"""Which cells there are, and which cannot be."""

from __future__ import annotations

from dataclasses import dataclass

from benchmark.matrix import cells, with_controls


@dataclass
class Needs:
    needs_reward_gradient: bool = False
    needs_stochastic_sampler: bool = False
    several_processes: bool = True


@dataclass
class Kind:
    differentiable: bool = False
    scores: str = "image"


METHODS = {
    "base": Needs(),
    "best-of-n": Needs(),
    "policy": Needs(needs_stochastic_sampler=True),
    "gradient": Needs(needs_reward_gradient=True),
}
REWARDS = {"smooth": Kind(differentiable=True), "rule": Kind()}


def test_controls_come_first_and_once() -> None:
    assert with_controls(["ddpo", "base"]) == ["base", "best-of-n", "ddpo"]


def test_base_is_one_cell_a_seed() -> None:
    found = cells(METHODS, REWARDS, [0, 4], eta=1.0)
    ids = [cell.id for cell in found]
    assert len(ids) == len(set(ids)) == 2 + 3 * 2 * 2
    assert [i for i in ids if i.startswith("base")] == ["base--none--s0", "base--none--s4"]
    assert "best-of-n--rule--s4" in ids


def test_a_gradient_method_does_not_apply_to_a_rule() -> None:
    found = cells(METHODS, REWARDS, [0], eta=1.0)
    assert {cell.id for cell in found if cell.not_applicable} == {"gradient--rule--s0"}
    reason = next(cell.not_applicable for cell in found if cell.not_applicable)
    assert reason == "gradient needs a reward gradient, and rule has none"


def test_a_policy_gradient_does_not_apply_without_noise() -> None:
    found = cells(METHODS, REWARDS, [0], eta=0.0)
    blocked = [cell for cell in found if cell.not_applicable and cell.method == "policy"]
    assert len(blocked) == 2
    assert "model.eta is 0" in blocked[0].not_applicable


def test_a_reward_goes_with_the_models_that_make_what_it_scores() -> None:
    rewards = {**REWARDS, "place": Kind(scores="point")}
    for output, fit in (("image", ["smooth", "rule"]), ("point", ["place"])):
        found = cells({"base": Needs(), "policy": Needs()}, rewards, [0], 1.0, output)
        applies = [cell.reward for cell in found if not cell.not_applicable]
        assert applies == ["none", *fit]
    reason = next(cell.not_applicable for cell in found if cell.reward == "rule")
    assert reason == "rule scores images, and the model makes points"
