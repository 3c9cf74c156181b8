"""Standardised rewards: whole numbers, hardly any spread, and what the tracker remembers."""

from __future__ import annotations

import statistics

import pytest
import torch
from pydantic import ValidationError

import methods
from methods.advantages import Advantages, PerPromptTracker, group_advantages, standardise


def test_tracker_matches_plain_statistics() -> None:
    tracker = PerPromptTracker(buffer_size=3, min_count=2)
    first = tracker.update(["a", "b", "a"], torch.tensor([1.0, 5.0, 2.0]))
    # "b" is known once, so the whole batch stands in for it.
    batch = [1.0, 5.0, 2.0]
    expected = [
        (1.0 - 1.5) / statistics.pstdev([1, 2]),
        (5.0 - statistics.mean(batch)) / statistics.pstdev(batch),
        (2.0 - 1.5) / statistics.pstdev([1, 2]),
    ]
    assert first.tolist() == pytest.approx(expected, rel=1e-4)
    second = tracker.update(["a", "a"], torch.tensor([6.0, 10.0]))
    known = [2.0, 6.0, 10.0]  # the oldest reward has left the buffer
    expected = [(r - statistics.mean(known)) / statistics.pstdev(known) for r in (6.0, 10.0)]
    assert second.tolist() == pytest.approx(expected, rel=1e-4)
    assert tracker.state_dict() == {"a": known, "b": [5.0]}


def test_whole_number_rewards_keep_their_fractions() -> None:
    rewards = torch.tensor([0, 1, 2, 5])
    values = PerPromptTracker(16, 1).update(["a"] * 4, rewards)
    assert values.dtype == torch.float64
    assert values.tolist() == pytest.approx([-1.069, -0.535, 0.0, 1.604], abs=1e-3)
    torch.testing.assert_close(values, group_advantages(["a"] * 4, rewards))


@pytest.mark.parametrize("level", [0.0, 1.0, -250.0, 3e4])
def test_rounding_noise_is_no_advantage(level: float) -> None:
    rewards = torch.full((8,), level, dtype=torch.float32)
    rewards[0] = torch.nextafter(rewards[0], torch.tensor(torch.inf))
    for values in (
        standardise(rewards, rewards),
        PerPromptTracker(16, 4).update(["a"] * 8, rewards),
    ):
        assert values.isfinite().all()
        assert values.abs().max() < 0.2


def test_prompts_are_told_apart_by_their_exact_text() -> None:
    tracker = PerPromptTracker(16, 2)
    tracker.update(["A fox", "a fox", "a fox ", "a fox"], torch.tensor([0.0, 1.0, 2.0, 3.0]))
    assert tracker.state_dict() == {"A fox": [0.0], "a fox": [1.0, 3.0], "a fox ": [2.0]}


def test_groups_are_standardised_each_on_its_own() -> None:
    prompts = ["easy", "hard", "easy", "hard"]
    rewards = torch.tensor([100.0, 1.0, 102.0, 2.0])
    assert group_advantages(prompts, rewards).tolist() == pytest.approx([-1, -1, 1, 1], abs=1e-3)
    batch = Advantages("batch", 5.0, 16, 16)(prompts, rewards)
    assert batch[0] > 0 > batch[3]


def test_advantages_are_clipped_and_fp32() -> None:
    rewards = torch.zeros(100)
    rewards[0] = 1.0
    values = Advantages("batch", 5.0, 16, 16)(["a"] * 100, rewards)
    assert values.dtype == torch.float32
    assert values.max() == 5.0


def test_the_tracker_is_restored() -> None:
    first, second = (Advantages("per_prompt_tracker", 5.0, 8, 2) for _ in range(2))
    first(["a", "b", "a"], torch.tensor([0.1, 0.2, 0.3]))
    second.load_state_dict(first.state_dict())
    rewards = torch.tensor([0.5, 0.7])
    assert torch.equal(first(["a", "b"], rewards), second(["a", "b"], rewards))


@pytest.mark.parametrize("name", ["ddpo", "ddpo-sf"])
def test_a_group_of_one_image_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="images_per_prompt of at least 2"):
        methods.get(name).Config.model_validate({"images_per_prompt": 1})
    methods.get(name).Config.model_validate({"images_per_prompt": 1, "advantage": "batch"})
