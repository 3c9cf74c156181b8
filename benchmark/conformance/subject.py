"""``benchmark check``: finds the method or reward that is meant, and runs its checks."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import methods
import rewards
from benchmark.conformance.checks import Check, Outcome, Subject, judge
from benchmark.conformance.methods import METHOD_CHECKS
from benchmark.conformance.rewards import REWARD_CHECKS
from benchmark.conformance.trial import Trial
from benchmark.errors import DoesNotConform, UsageError, did_you_mean
from methods import Method
from rewards import Reward

Kind = type[Method] | type[Reward]


def check(subject: str) -> None:
    """Check a name or ``file.py:Class``, printing a line a check.

    Raises ``UsageError`` if there is nothing to check or a package that it needs is not installed,
    ``DoesNotConform`` if a check failed.
    """
    file = re.fullmatch(r"(.+\.py)(?::(.*))?", subject)
    kind = from_file(Path(file[1]), file[2] or "") if file else from_name(subject)
    if reason := kind.unavailable():
        raise UsageError(f"{subject} {reason}")
    outcomes = (
        run(METHOD_CHECKS, Trial(kind)) if issubclass(kind, Method) else run_reward(subject, kind)
    )
    failed = sum(outcome.state == "FAILED" for outcome in outcomes)
    if failed:
        raise DoesNotConform(f"{subject}: {failed} of {len(outcomes)} checks failed")
    passed = sum(outcome.state == "passed" for outcome in outcomes)
    print(f"{subject}: {passed} checks passed, {len(outcomes) - passed} not applicable")


def run(checks: Iterable[Check[Subject]], subject: Subject) -> list[Outcome]:
    """Run all checks, printing each when it ends."""
    outcomes = []
    for each in checks:
        outcomes.append(judge(each, subject))
        print(outcomes[-1], flush=True)
    return outcomes


def run_reward(subject: str, kind: type[Reward]) -> list[Outcome]:
    """Make the reward with its default options and run its checks."""
    try:
        reward = kind()
    except Exception as error:
        raise UsageError(f"{subject} cannot be made without arguments: {_told(error)}") from error
    return run(REWARD_CHECKS, reward)


def from_name(name: str) -> Kind:
    """The registered method or reward of a name; raises ``UsageError``."""
    known: dict[str, Kind] = {**rewards.registry(), **methods.registry()}
    if name not in known:
        raise UsageError(f"unknown method or reward {name!r}; {did_you_mean(name, known)}")
    return known[name]


def from_file(file: Path, name: str) -> Kind:
    """The class of that name in a file, or its only one if there is no name; raises
    ``UsageError``."""
    if not file.is_file():
        raise UsageError(f"{file}: no such file")
    module = _imported(file)
    own = {
        key: value
        for key, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, Method | Reward)
        and value.__module__ == module.__name__
    }
    if not name and len(own) == 1:
        return next(iter(own.values()))
    if name in own:
        return own[name]
    if name and hasattr(module, name):
        raise UsageError(f"{file}: {name} is not a Method or Reward class defined in it")
    if not own:
        raise UsageError(f"{file}: it defines no Method and no Reward class")
    if not name:
        raise UsageError(f"{file}: say which class: {', '.join(f'{file}:{key}' for key in own)}")
    raise UsageError(f"{file}: unknown class {name!r}; {did_you_mean(name, own)}")


def _imported(file: Path) -> ModuleType:
    """The file as a module; what goes wrong in it is told in one line."""
    # The file of a registered method or reward: importing it again would register it twice.
    registries = {**rewards.registry(), **methods.registry()}
    for kind in registries.values():
        module = sys.modules[kind.__module__]
        if module.__file__ and Path(module.__file__).resolve() == file.resolve():
            return module
    spec = importlib.util.spec_from_file_location(f"checked_{file.stem}", file)
    assert spec and spec.loader  # there is one for every name that ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        raise UsageError(f"{file} cannot be imported: {_told(error)}") from error
    return module


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
