"""What the regression gate found, for machines and for a reviewer: JSON, Markdown, JUnit."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from xml.etree import ElementTree

from results.gate import Comparison
from results.gate_verdicts import EXIT_CODES, Verdict
from results.numbers import number, p_value

NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~])")
TROUBLE = {verdict for verdict in Verdict if verdict not in (Verdict.PASS, Verdict.IMPROVEMENT)}
"""Verdicts that a reader has to see one by one."""


def counts(comparisons: Sequence[Comparison]) -> dict[str, int]:
    """How many comparisons have each verdict, those of none left out."""
    found = Counter(each.verdict for each in comparisons)
    return {str(verdict): found[verdict] for verdict in Verdict if found[verdict]}


def summary(comparisons: Sequence[Comparison], code: int) -> str:
    """One line: the verdicts and what the exit code means."""
    found = counts(comparisons)
    listed = ", ".join(f"{count} {verdict}" for verdict, count in found.items())
    meaning = EXIT_CODES[code]
    if Verdict.REGRESSION in found and code != 1:
        meaning = "slower is told and does not fail" + (f"; {meaning}" if code else "")
    return f"{listed or 'no comparison'}; exit code {code}: {meaning}"


def difference(each: Comparison) -> str:
    """The signed difference with its 90 % interval; empty where nothing was tested."""
    test = each.test
    if test is None:
        return ""
    text = number(test.difference, sign=True)
    if math.isfinite(test.low):
        text += f" [{number(test.low)}, {number(test.high)}]"
    return text


def p_of(each: Comparison) -> str:
    """The adjusted p-value of the direction that the difference has; empty without a test."""
    if each.test is None:
        return ""
    return p_value(each.p_adjusted if each.test.difference < 0 else each.p_gain_adjusted)


def as_json(comparisons: Sequence[Comparison], code: int) -> str:
    """All comparisons with their raw values; numbers that are not finite are null."""
    content = {
        "exit_code": code,
        "meaning": EXIT_CODES[code],
        "verdicts": counts(comparisons),
        "comparisons": [_fields(each) for each in comparisons],
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _fields(each: Comparison) -> dict[str, object]:
    test = each.test
    return {
        "group": each.group,
        "measure": each.measure,
        "against": each.against,
        "verdict": str(each.verdict),
        "detail": each.detail,
        "unit": each.unit,
        "margin": _finite(each.margin),
        "old": [_finite(value) for value in each.old],
        "new": [_finite(value) for value in each.new],
        "difference": _finite(test.difference) if test else None,
        "low": _finite(test.low) if test else None,
        "high": _finite(test.high) if test else None,
        "p_loss": _finite(test.p_loss) if test else None,
        "p_loss_adjusted": _finite(each.p_adjusted),
        "p_gain_adjusted": _finite(each.p_gain_adjusted),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def as_markdown(comparisons: Sequence[Comparison], code: int) -> str:
    """A summary for a pull request: what is not a plain pass as a table."""
    lines = [f"**Regression gate**: {summary(comparisons, code)}", ""]
    shown = [each for each in comparisons if each.verdict is not Verdict.PASS]
    if shown:
        lines += ["| verdict | what | better by [90 %] | margin | p, Holm | detail |"]
        lines += ["|---|---|---:|---:|---:|---|"]
    for each in shown:
        margin = number(each.margin) if math.isfinite(each.margin) else ""
        cells = (str(each.verdict), each.name, difference(each), margin, p_of(each), each.detail)
        lines.append("| " + " | ".join(_escaped(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Text of a results folder inside a Markdown table: neither markup nor a line break."""
    return MARKDOWN.sub(r"\\\1", " ".join(printable(text).split()))


def as_junit(comparisons: Sequence[Comparison], code: int) -> str:
    """A test case for each comparison, for the test view of a CI service.

    Failed cells are errors; regressions and what is missing, new or not comparable are failures;
    what is inconclusive is skipped.
    """
    outcome = {_outcome(each): 0 for each in comparisons} | {"failure": 0, "error": 0, "skipped": 0}
    suite = ElementTree.Element("testsuite", name="gate", tests=str(len(comparisons)))
    for each in comparisons:
        kind = _outcome(each)
        outcome[kind] += 1
        drift = " (drift)" if each.against == "oldest" else ""
        name = printable(f"{each.measure or 'cells'}{drift}")
        case = ElementTree.SubElement(suite, "testcase", classname=printable(each.group), name=name)
        if kind:
            text = "; ".join(part for part in (difference(each), each.detail) if part)
            message = printable(f"{each.verdict}: {text}")
            attributes = {"message": message}
            if kind != "skipped":
                attributes["type"] = str(each.verdict)
            ElementTree.SubElement(case, kind, attributes)
    suite.set("failures", str(outcome["failure"] + (code == 3 and not comparisons)))
    suite.set("errors", str(outcome["error"]))
    suite.set("skipped", str(outcome["skipped"]))
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _outcome(each: Comparison) -> str:
    if each.verdict in (Verdict.PASS, Verdict.IMPROVEMENT):
        return ""
    special = {Verdict.FAILED: "error", Verdict.INCONCLUSIVE: "skipped"}
    return special.get(each.verdict, "failure")


def printable(text: str) -> str:
    """Without control characters, which XML cannot hold and a terminal would obey."""
    return NOT_IN_XML.sub("\ufffd", text)
