"""``benchmark calibrate``: scores of the untrained model against stored ones, before training.

Every sampler of the calibration draws the same prompts; each score is compared with what is stored
of it, in standard errors of the difference (``results/calibration.py``). Stored values that this
program measured have a value a prompt and are compared prompt by prompt, with other noise than
they were measured with, so that agreement is no equality of bits.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path

from benchmark import calibration_report as reports
from benchmark.calibration import (
    Calibration,
    Kind,
    Stored,
    StoredScore,
    StoredValue,
    read,
    with_stored,
)
from benchmark.calibration_plan import Choices, Key, Plan, measure, prepare
from benchmark.calibration_report import Row
from benchmark.calibrations import find
from benchmark.errors import Differs, NothingToReport, UsageError
from benchmark.terminal import print_table
from benchmark.validation import Origins, validate
from benchmark.yaml_file import parse
from results import calibration as arithmetic
from results import store
from results.calibration import Measured, Verdict
from results.record_text import plain


def calibrate(name: str, choices: Choices, out: Path | None, command: str) -> None:
    """Compare, print, and write ``out`` as JSON.

    Raises ``UsageError`` for bad input and missing weights, ``NothingToReport`` where nothing can
    be compared, ``Differs`` where a score differs.
    """
    calibration = read(find(name))
    stored = calibration.stored
    if stored is None:
        raise UsageError(f"calibration {calibration.name} has no stored values; --update adds them")
    seed = calibration.seed if choices.seed is None else choices.seed
    if seed == stored.seed:
        raise UsageError(
            f"--seed {seed}: the stored values were measured with this noise; take another seed"
        )
    plan = prepare(calibration, choices)
    if stored.conditions and stored.conditions != calibration.conditions(plan.prompts):
        raise UsageError(
            f"calibration {calibration.name}: the stored values were measured with other prompts "
            "or another sampler; --update measures them anew"
        )
    rows = [_compared(plan, stored, key, found) for key, found in measure(plan).items()]
    print_table(reports.table(plan, rows))
    for line in reports.notes(plan, stored, rows):
        print(line)
    if out is not None:
        content = reports.content(plan, stored, rows, command)
        _write(out, json.dumps(plain(content), indent=2, ensure_ascii=False) + "\n")
    _conclude(calibration, rows)


def update(name: str, choices: Choices) -> None:
    """Measure the stored values anew, and write them into the calibration's file.

    Raises ``UsageError`` for published values, a model or prompts other than the calibration's,
    and the noise of its checks.
    """
    path = find(name)
    calibration = read(path)
    if calibration.origin == "published":
        raise UsageError(f"calibration {calibration.name}: its values are published ones")
    if choices.model is not None or choices.prompts is not None:
        raise UsageError("--update measures the calibration's own model, on all of its prompts")
    if choices.seed is None or choices.seed == calibration.seed:
        raise UsageError(
            f"--update needs --seed N, another than {calibration.seed}, the noise of checks"
        )
    plan = prepare(calibration, choices)
    stored = _stored(plan, measure(plan))
    text = with_stored(path.read_text(encoding="utf-8"), stored)
    expected = calibration.model_copy(update={"stored": stored})
    if validate(Calibration, parse(text, path), Origins(path)) != expected:
        raise UsageError(f"{path}: 'stored' has to be the last key, at the beginning of a line")
    _write(path, text)
    print(f"{path}: {stored.source}")


def _compared(plan: Plan, stored: Stored, key: Key, measured: Measured) -> Row:
    kind, name, eta = key
    calibration = plan.calibration
    score, value = calibration.stored_value(kind, name, eta)
    if value.by_prompt:
        known = [value.by_prompt[index] for index in plan.chosen]
        difference = arithmetic.paired(measured, known)
        if len(known) < len(value.by_prompt):  # what is shown is of the same prompts
            mean, error = math.fsum(known) / len(known), arithmetic.standard_error(known)
            value = value.model_copy(update={"value": mean, "standard_error": error})
    else:
        difference = arithmetic.unpaired(
            measured, value.value, value.standard_error, stored.prompts
        )
        if stored.images_per_prompt and len(plan.chosen) == len(plan.prompts) == stored.prompts:
            # The same prompts: their noise, as large there as here if the model is the same.
            noise = measured.noise * math.sqrt(1 + plan.images / stored.images_per_prompt)
            difference = dataclasses.replace(difference, noise=noise)
    verdict = arithmetic.verdict(difference, calibration.agrees_within, calibration.differs_above)
    here = plan.versions[kind, name]
    if score.version and score.version != here:
        reason = f"{name} is version {here} here, and was {score.version}"
        return Row(kind, name, eta, measured, value, difference, Verdict.NOT_COMPARED, reason)
    return Row(kind, name, eta, measured, value, difference, verdict)


def _conclude(calibration: Calibration, rows: list[Row]) -> None:
    """Raise what the verdicts lead to."""
    if all(row.verdict is Verdict.NOT_COMPARED for row in rows):
        raise NothingToReport(f"calibration {calibration.name}: nothing can be compared")
    far = [row for row in rows if row.verdict is Verdict.DIFFERS]
    if far:
        listed = ", ".join(
            f"{row.title} at eta {row.eta:g} by {abs(row.difference.errors):.1f}" for row in far
        )
        raise Differs(
            f"calibration {calibration.name}: {len(far)} of {len(rows)} scores differ from the "
            f"stored ones, in standard errors: {listed}"
        )


def _stored(plan: Plan, found: Mapping[Key, Measured]) -> Stored:
    """What the file is to hold, to six significant digits."""

    def scores(kind: Kind, name: str) -> StoredScore:
        values = [
            StoredValue(
                eta=eta,
                value=_rounded(found[kind, name, eta].value),
                standard_error=_rounded(found[kind, name, eta].standard_error),
                by_prompt=tuple(map(_rounded, found[kind, name, eta].by_prompt)),
            )
            for eta in plan.calibration.etas
        ]
        return StoredScore(version=plan.versions[kind, name], values=tuple(values))

    images = len(plan.prompts) * plan.images
    return Stored(
        source=f"measured by this program: {images:,} images a sampler, {plan.images} a prompt, "
        f"seed {plan.seed}",
        prompts=len(plan.prompts),
        images_per_prompt=plan.images,
        seed=plan.seed,
        conditions=plan.calibration.conditions(plan.prompts),
        model=plan.model,
        rewards={name: scores("reward", name) for name in plan.rewards},
        diversity={name: scores("diversity", name) for name in plan.encoders},
    )


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _write(path: Path, text: str) -> None:
    try:
        store.write_bytes(path, text.encode())
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
