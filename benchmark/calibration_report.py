"""What ``calibrate`` prints and writes of its comparisons."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from benchmark import environment
from benchmark.calibration import Kind, Stored, StoredValue
from benchmark.calibration_plan import Plan
from benchmark.terminal import Table
from results.calibration import Difference, Measured, Verdict


@dataclass(frozen=True)
class Row:
    """One score under one sampler, compared."""

    kind: Kind
    name: str
    eta: float
    measured: Measured
    stored: StoredValue
    difference: Difference
    verdict: Verdict
    reason: str = ""
    """Why it is not compared."""

    @property
    def title(self) -> str:
        """Name for people."""
        return self.name if self.kind == "reward" else f"diversity, {self.name}"


def table(plan: Plan, rows: list[Row]) -> Table:
    """A row a score and sampler."""
    title = (
        f"calibration {plan.calibration.name}: {len(plan.chosen)} prompts, {plan.images} images a "
        f"prompt, seed {plan.seed}"
    )
    found = Table(title=title, box=None, pad_edge=False)
    with_noise = any(math.isfinite(row.difference.noise) for row in rows)
    headings = ["score", "eta", "measured", "SE", "stored", "SE", "difference", "SE", "in SEs"]
    for heading in (*headings, *(["in SEs of noise"] if with_noise else []), "verdict"):
        found.add_column(heading, justify="left" if heading in ("score", "verdict") else "right")
    for row in rows:
        difference, error = row.difference, row.stored.standard_error
        cells = [row.title, f"{row.eta:g}", f"{row.measured.value:.4f}"]
        cells += [f"{row.measured.standard_error:.4f}", f"{row.stored.value:.4f}"]
        cells += ["-" if error is None else f"{error:.4f}"]
        cells += [f"{difference.value:+.4f}", f"{difference.standard_error:.4f}"]
        cells.append(f"{difference.errors:+.1f}")
        if with_noise:
            known = math.isfinite(difference.noise)
            cells.append(f"{difference.noise_errors:+.1f}" if known else "-")
        found.add_row(*cells, str(row.verdict))
    return found


def notes(plan: Plan, stored: Stored, rows: list[Row]) -> list[str]:
    """What the table rests on, and how often chance alone makes a score differ."""
    calibration = plan.calibration
    lines = [
        f"stored: {stored.source}",
        "SE: standard error over prompts; images of one prompt are not independent. "
        f"Agrees: within {calibration.agrees_within:g} standard errors of the difference; "
        f"differs: above {calibration.differs_above:g}.",
    ]
    paired = {row.difference.paired for row in rows}
    if True in paired:
        lines.append("Compared prompt by prompt, with other noise than the stored values had.")
    if False in paired:
        lines.append(
            "Compared as two samples of prompts, whose standard errors add up in squares; of the "
            "same prompts that is too wide, and the noise alone says more."
        )
    compared = [row for row in rows if row.verdict is not Verdict.NOT_COMPARED]
    if compared:
        chances = [row.difference.false_alarm(calibration.differs_above) for row in compared]
        some = min(1.0, sum(chances))
        lines.append(
            f"By chance alone, were the values of prompts normal, a score differs in "
            f"{max(chances):.2%} of checks, and some of the {len(compared)} in at most {some:.1%}."
        )
    lines += dict.fromkeys(f"not compared: {row.reason}" for row in rows if row.reason)
    counts = {verdict: sum(row.verdict is verdict for row in rows) for verdict in Verdict}
    listed = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    return [*lines, f"calibrate {calibration.name}: {listed}"]


def content(plan: Plan, stored: Stored, rows: list[Row], command: str) -> dict[str, Any]:
    """All of it, for ``--out``."""
    calibration, threads = plan.calibration, torch.get_num_threads()
    on_gpu = plan.policy.device.type == "cuda"
    return {
        "calibration": calibration.name,
        "source": stored.source,
        "model": plan.model,
        "sampler": calibration.model.model_dump(include={"sampling_steps", "guidance_scale"}),
        "prompts": [plan.prompts[index] for index in plan.chosen],
        "images_per_prompt": plan.images,
        "seed": plan.seed,
        "unit_of_standard_errors": "prompt",
        "agrees_within": calibration.agrees_within,
        "differs_above": calibration.differs_above,
        "scores": [
            {
                "kind": row.kind,
                "name": row.name,
                "version": plan.versions[row.kind, row.name],
                "eta": row.eta,
                "measured": row.measured.value,
                "measured_standard_error": row.measured.standard_error,
                "measured_by_prompt": list(row.measured.by_prompt),
                "stored": row.stored.value,
                "stored_standard_error": row.stored.standard_error,
                "difference": row.difference.value,
                "standard_error": row.difference.standard_error,
                "in_standard_errors": row.difference.errors,
                "in_standard_errors_of_noise": row.difference.noise_errors,
                "paired": row.difference.paired,
                "degrees_of_freedom": row.difference.freedom,
                "false_alarm": row.difference.false_alarm(calibration.differs_above),
                "verdict": str(row.verdict),
                "reason": row.reason,
            }
            for row in rows
        ],
        "environment": environment.describe(command, threads, on_gpu).model_dump(mode="json"),
    }
