"""The sentences say what the intervals say."""

from __future__ import annotations

from pathlib import Path

from results import comparisons, store, verdict
from results.store import Run
from tests.results.synthetic import Synthetic


def texts(run: Run, task: str) -> dict[str, list[str]]:
    return {
        claim.text: [item.method for item in claim.items] for claim in verdict.claims(run, task)
    }


def test_it_names_who_is_above_base_and_who_does_not_beat_best_of_n(run: Run) -> None:
    claims = texts(run, "style")
    assert claims["Reward above base"] == ["dag", "alignprop"]
    # Its interval excludes zero, but not after adjusting for ten comparisons.
    assert claims["Reward not separable from base"] == ["ddpo"]
    (ddpo,) = [
        item.difference
        for claim in verdict.claims(run, "style")
        if claim.text == "Reward not separable from base"
        for item in claim.items
    ]
    assert ddpo is not None and ddpo.sign == 1
    assert claims["Beats best-of-n at the same 128 reward calls"] == ["alignprop"]
    assert claims["Not separable from best-of-n at the same 128 reward calls"] == ["ddpo"]
    # dag makes eleven calls an image: at 128 calls it has hardly begun.
    assert claims["Below best-of-n at the same 128 reward calls"] == ["dag"]
    assert "Reward below base" not in claims


def test_claims_are_those_of_the_adjusted_comparisons(run: Run) -> None:
    for task in ("style", "colourfulness"):
        against = comparisons.family(run, task, "reward", task).against("base")
        above = [name for name, each in against.items() if each.p_adjusted < 0.05]
        above = [name for name in above if name != "best-of-n"]
        assert texts(run, task)["Reward above base"] == above


def test_a_method_that_beats_best_of_n_only_at_the_end_is_granted_that(run: Run) -> None:
    claims = verdict.claims(run, "style")
    lost = next(claim for claim in claims if claim.text.startswith("Below best-of-n"))
    notes = {item.method: item.note for item in lost.items}
    assert notes["dag"].startswith("(at the end of training it beats it: +0.")


def test_missing_cells_and_bad_images_are_told(run: Run) -> None:
    style = {claim.text: str(claim) for claim in verdict.claims(run, "style")}
    assert "ddpo 2 of 3 seeds done: RuntimeError: out of memory" in style["No full result"]
    assert "ddpo 2 constant images" in style["Bad images in the picked evaluation"]
    colour = {claim.text: str(claim) for claim in verdict.claims(run, "colourfulness")}
    assert "alignprop does not apply: needs a reward gradient" in colour["No full result"]


def test_the_headline_counts_pairs(run: Run) -> None:
    headline = verdict.headline(run)
    assert "in 4 of 5 pairs of method and reward" in headline
    assert "with at least as many reward calls was separably beaten in 1 of 5" in headline
    assert "Few seeds separate only differences far larger than their spread." in headline
    assert verdict.coverage_sentence(run) == "27 cells: 23 done, 1 failed, 3 not applicable."


def test_one_seed_allows_no_claim(tmp_path: Path) -> None:
    run = store.read_run(Synthetic(tmp_path, seeds=(0,)).write())
    assert "cannot be said" in verdict.headline(run)
    assert texts(run, "style") == {
        "One seed only, so no interval": ["dag", "ddpo", "alignprop"],
        "Bad images in the picked evaluation": ["ddpo"],
    }


def test_a_method_that_changes_nothing_is_not_separable(tmp_path: Path) -> None:
    folder = Synthetic(tmp_path, methods=("dag",)).write()
    for seed in (0, 1):
        base = store.cell_folder(folder, f"base--none--s{seed}") / "evaluations.jsonl"
        dag = store.cell_folder(folder, f"dag--style--s{seed}") / "evaluations.jsonl"
        dag.write_text(base.read_text())
    assert texts(store.read_run(folder), "style")["Reward not separable from base"] == ["dag"]


def test_nothing_done_is_said(tmp_path: Path) -> None:
    store.write_json(tmp_path / "run.json", Synthetic(tmp_path).run_record(["dag--style--s0"]))
    run = store.read_run(tmp_path)
    assert "nothing to compare yet" in verdict.headline(run)
    assert verdict.coverage_sentence(run) == "1 cell: 1 pending."
