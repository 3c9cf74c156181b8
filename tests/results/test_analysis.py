"""Tables and curves against the same numbers computed from the records by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from results import analysis, budgets, comparisons, curves, records, store
from results.store import Run
from tests.results.synthetic import BUDGET, Synthetic


def final(run: Run, cell_id: str, reward: str) -> float:
    return float(np.mean(run.cells[cell_id].evaluations[-1].rewards[reward]))


def test_a_seeds_value_is_the_mean_over_prompts_and_images(run: Run) -> None:
    row = next(row for row in analysis.task_table(run, "style") if row.method == "dag")
    values = [final(run, f"dag--style--s{seed}", "style") for seed in (0, 1, 2)]
    base = [final(run, f"base--none--s{seed}", "style") for seed in (0, 1, 2)]
    assert list(row.reward.values.values()) == pytest.approx(values)
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert (row.reward.low, row.reward.high) == pytest.approx((low, high))
    assert row.gain is not None
    assert row.gain.difference.mean == pytest.approx(np.mean(np.subtract(values, base)))


def test_base_serves_for_every_reward_and_has_no_gain(run: Run) -> None:
    for task in ("style", "colourfulness"):
        row = analysis.task_table(run, task)[0]
        assert row.method == "base" and row.gain is None and row.diversity_change == {}
        assert row.reward.values[1] == pytest.approx(final(run, "base--none--s1", task))


def test_failed_seeds_are_missing_from_the_mean_and_counted(run: Run) -> None:
    row = next(row for row in analysis.task_table(run, "style") if row.method == "ddpo")
    assert (row.done, row.cells, row.state) == (2, 3, "done")
    assert sorted(row.reward.values) == [0, 2] and "out of memory" in row.reason
    assert (
        row.gain is not None and sorted(row.gain.difference.values) == [0, 2] and row.gain.partial
    )
    assert row.bad_images == {"constant": 2}


def test_a_pairing_that_does_not_apply_says_why(run: Run) -> None:
    row = next(
        row for row in analysis.task_table(run, "colourfulness") if row.method == "alignprop"
    )
    assert row.state == "not_applicable" and row.done == 0
    assert "needs a reward gradient" in row.reason
    assert row.reward.seeds == 0


def test_the_last_evaluation_counts_not_the_best(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path).write()
    path = store.cell_folder(folder, "dag--style--s0") / "evaluations.jsonl"
    evaluations = store.read_jsonl(path, records.EvaluationRecord)
    worse = [[0.0] * 4] * 4
    store.append_jsonl(path, evaluations[-1].model_copy(update={"rewards": {"style": worse}}))
    run = store.read_run(folder)
    row = next(row for row in analysis.task_table(run, "style") if row.method == "dag")
    assert row.reward.values[0] == 0


def test_an_image_that_is_not_finite_takes_its_seed_out(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path, seeds=(0, 1, 2)).write()
    path = store.cell_folder(folder, "dag--style--s0") / "evaluations.jsonl"
    evaluations = store.read_jsonl(path, records.EvaluationRecord)
    evaluations[-1].rewards["style"][2][1] = math.nan
    store.write_jsonl(path, evaluations)
    row = next(
        row for row in analysis.task_table(store.read_run(folder), "style") if row.method == "dag"
    )
    assert row.reward.seeds == 2 and math.isnan(row.reward.values[0])


def test_every_state_is_covered(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path).write()
    (store.cell_folder(folder, "dag--style--s0") / "status.json").unlink()
    store.cell_folder(folder, "dag--style--s1").rename(tmp_path / "gone")
    coverage = analysis.coverage(store.read_run(folder)).set_index("cell_id")
    assert coverage.loc["base--none--s0", "state"] == "done"
    assert coverage.loc["ddpo--style--s1", "state"] == "failed"
    assert coverage.loc["alignprop--colourfulness--s0", "state"] == "not_applicable"
    assert coverage.loc["dag--style--s0", "state"] == "running"
    assert coverage.loc["dag--style--s1", "state"] == "pending"
    assert len(coverage) == len(store.read_run(folder).record.cells)


def test_curves_start_at_the_untrained_model_of_their_seed(run: Run) -> None:
    curve = curves.learning_curves(run, "style")
    curve = curve[(curve["kind"] == "reward") & (curve["name"] == "style")]
    dag = curve[(curve["method"] == "dag") & (curve["seed"] == 1)]
    assert list(dag["round"]) == [0, 2, 4, 6, 8]
    assert list(dag["images"]) == [0, 32, 64, 96, 128]
    assert list(dag["reward_calls"]) == [0, 352, 704, 1056, 1408]
    assert dag["value"].iloc[0] == pytest.approx(final(run, "base--none--s1", "style"))
    assert dag["training_seconds"].iloc[0] == 0
    assert set(curve["method"]) == {"dag", "ddpo", "alignprop"}


def test_mean_curves_leave_out_rounds_that_a_seed_has_not_reached(run: Run) -> None:
    curve = curves.learning_curves(run, "style")
    short = curve[~((curve["method"] == "dag") & (curve["seed"] == 2) & (curve["round"] > 4))]
    means = curves.mean_curves(short)
    dag = means[(means["method"] == "dag") & (means["name"] == "style")]
    assert list(dag["round"]) == [0, 2, 4]
    point = curve[(curve["method"] == "dag") & (curve["name"] == "style") & (curve["round"] == 4)]
    row = dag.iloc[2]
    assert row["mean"] == pytest.approx(point["value"].mean())
    assert row["training_seconds"] == pytest.approx(point["training_seconds"].mean())


def test_gradient_calls_are_reward_calls(run: Run) -> None:
    row = next(row for row in analysis.task_table(run, "style") if row.method == "alignprop")
    assert row.reward_calls == BUDGET


def equal_calls(run: Run, method: str) -> budgets.EqualBudgetComparison:
    family = budgets.equal_budget_family(run, "style")
    return next(each for each in family if each.comparison.method == method)


def test_best_of_n_is_compared_at_its_number_of_reward_calls(run: Run) -> None:
    compared = equal_calls(run, "dag")
    assert compared.reached and compared.spent == compared.best_of_n_spent == BUDGET
    final_pair = comparisons.family(run, "style", "reward", "style").against("best-of-n")["dag"]
    for seed in (0, 1, 2):
        base = final(run, f"base--none--s{seed}", "style")
        first = float(np.mean(run.cells[f"dag--style--s{seed}"].evaluations[0].rewards["style"]))
        best = final(run, f"best-of-n--style--s{seed}", "style")
        # The first evaluation of dag is at 352 calls.
        at_equal = base + (first - base) * BUDGET / 352
        assert compared.comparison.difference.values[seed] == pytest.approx(at_equal - best)
        at_end = final(run, f"dag--style--s{seed}", "style")
        assert final_pair.difference.values[seed] == pytest.approx(at_end - best)


def test_a_method_with_fewer_calls_is_compared_at_its_end_and_says_so(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path).write()
    for seed in (0, 1):
        path = store.cell_folder(folder, f"best-of-n--style--s{seed}") / "evaluations.jsonl"
        (record,) = store.read_jsonl(path, records.EvaluationRecord)
        record.counts.reward_calls = 10_000
        store.write_jsonl(path, [record])
    run = store.read_run(folder)
    compared = equal_calls(run, "dag")
    assert not compared.reached and compared.spent == 1408
    final_pair = comparisons.family(run, "style", "reward", "style").against("best-of-n")["dag"]
    assert compared.comparison.difference == final_pair.difference


def test_a_family_holds_all_pairs_that_apply(run: Run) -> None:
    reward, *diversity = comparisons.families(run, "style")
    assert (reward.kind, reward.name) == ("reward", "style") and len(diversity) == 2
    # Five methods, all of them on the first reward.
    assert len(reward.comparisons) == reward.made == 10
    assert {each.planned for each in reward.comparisons} == {3}
    (refused, *_) = comparisons.families(run, "colourfulness")
    assert len(refused.comparisons) == 6
    assert "alignprop" not in {each.method for each in refused.comparisons}
    smallest = min(reward.comparisons, key=lambda each: each.p)
    assert smallest.p_adjusted == pytest.approx(10 * smallest.p)


def test_tiers_put_separable_methods_apart(run: Run) -> None:
    tiers = {row.method: row.tier for row in analysis.task_table(run, "style")}
    assert tiers["alignprop"] == 1 and tiers["base"] is not None and tiers["base"] > 1


def test_cross_rewards_score_every_cell_by_every_reward(run: Run) -> None:
    rows = analysis.cross_rewards(run)
    assert rows[0].method == "base" and rows[0].changes == {}
    dag = next(row for row in rows if (row.method, row.task) == ("dag", "style"))
    values = [final(run, f"dag--style--s{seed}", "colourfulness") for seed in (0, 1, 2)]
    assert dag.scores["colourfulness"].mean == pytest.approx(np.mean(values))
    base = [final(run, f"base--none--s{seed}", "colourfulness") for seed in (0, 1, 2)]
    assert dag.changes["colourfulness"].mean == pytest.approx(np.mean(values) - np.mean(base))
    assert ("alignprop", "colourfulness") not in {(row.method, row.task) for row in rows}


def test_throughput_averages_seeds_of_one_machine_only(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path, seeds=(0, 1, 2)).write()
    path = store.cell_folder(folder, "dag--style--s2") / "environment.json"
    environment = store.read_json(path, records.Environment)
    store.write_json(path, environment.model_copy(update={"gpu": "an accelerator"}))
    run = store.read_run(folder)
    table = analysis.throughput(run)
    dag = table[(table["method"] == "dag") & (table["task"] == "style")].set_index("machine")
    assert dag["seeds"].to_dict() == {"a processor, 1 threads": 2, "an accelerator": 1}
    cells = [run.cells[f"dag--style--s{seed}"] for seed in (0, 1)]
    row = dag.loc["a processor, 1 threads"]
    assert row["seconds"] == pytest.approx(np.mean([cell.status.seconds for cell in cells]))
    assert row["seconds: rollout"] == pytest.approx(
        np.mean([cell.status.seconds_by_phase["rollout"] for cell in cells])
    )
    assert row["sampling_images_per_second"] == 8.0
    assert row["unet_forward"] == BUDGET * 30 and row["reward_calls"] == BUDGET * 11
    assert row["peak_memory_bytes"] == max(cell.status.peak_memory_bytes for cell in cells)


def test_an_empty_run_has_empty_tables(tmp_path: Path) -> None:
    synthetic = Synthetic(tmp_path)
    store.write_json(tmp_path / "run.json", synthetic.run_record(["dag--style--s0"]))
    run = store.read_run(tmp_path)
    (row,) = analysis.task_table(run, "style")
    assert row.state == "pending" and row.reward.seeds == 0
    assert analysis.cross_rewards(run) == [] and len(analysis.throughput(run)) == 0
    assert len(curves.learning_curves(run, "style")) == 0
