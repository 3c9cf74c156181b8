"""What every method keeps from one run to another: bits, counts, seeds."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from benchmark import state_file
from benchmark.conformance.checks import Checks, Finding, violations
from benchmark.conformance.randomness import global_states, seeded_globally
from benchmark.conformance.trial import Tint, Trial, compare_runs, require_training, run
from benchmark.conformance.watch import Watch
from benchmark.evaluation import Evaluator

CHECKS: Checks[Trial] = Checks()


@CHECKS("a stopped and resumed run is the straight run", "weights and metrics that differ")
def resuming(trial: Trial) -> Finding:
    """After one of two rounds, through the bytes of a checkpoint, in a new method on a new policy;
    bit for bit."""
    require_training(trial)
    straight = trial.start()
    straight.step()
    try:
        content = state_file.pack(straight.state_dict())
    except TypeError as error:
        return violations([str(error)])
    weights = straight.policy.state_dict()
    last = run(straight, 1)
    resumed = trial.start()
    resumed.load_state_dict(state_file.unpack(content))
    resumed.policy.load_state_dict(weights)
    return violations(compare_runs((straight, last), (resumed, run(resumed, 1))))


@CHECKS("evaluation changes nothing", "weights, metrics and counts that differ")
def evaluation(trial: Trial) -> Finding:
    """Evaluated before, between and after two rounds, and not at all; bit for bit."""
    require_training(trial)
    runs = []
    for evaluated in (False, True):
        method = trial.start()
        evaluator = Evaluator(method.policy, ["an owl", "a cat"], 2, 0, 3, {"tint": Tint()}, {})
        values = []
        for _ in range(2):
            if evaluated:
                evaluator.evaluate()
            values += run(method, 1)
        if evaluated:
            evaluator.evaluate()
        runs.append((method, values))
    problems = compare_runs(*runs)
    if runs[0][0].policy.ledger.counts() != runs[1][0].policy.ledger.counts():
        problems.append("costs counted differ")
    return violations(problems)


@CHECKS("the seed alone decides the run", "weights, metrics and global states that differ")
def determinism(trial: Trial) -> Finding:
    """Under two global seeds, bit for bit; global generators stay; another seed is another run."""
    require_training(trial)
    runs, problems = [], []
    for seed in (1, 2):
        with seeded_globally(seed):
            method = trial.start()
            before = global_states()
            runs.append((method, run(method)))
            if global_states() != before:
                problems.append("it draws from a global random generator")
    problems = list(dict.fromkeys(problems)) + compare_runs(*runs)
    other = trial.method(trial.task(trial.build_policy(), trial.images, seed=1))
    if not compare_runs(runs[0], (other, run(other))):
        problems.append("another seed gives the same run")
    return violations(problems)


@CHECKS("images and optimizer steps are counted as they happen", "counts off")
def counting(trial: Trial) -> Finding:
    """The ledger against distinct initial latents, pictures scored, and steps of optimizers."""
    require_training(trial)
    method = trial.start()
    scored = 0

    class Seen(Tint):
        def score(self, images: Tensor, prompts: Any) -> Tensor:
            nonlocal scored
            scored += len(images)
            return super().score(images, prompts)

    method = trial.start(Seen())
    with Watch(method.policy) as watch:
        run(method)
    counted = method.policy.ledger
    problems = []
    for name, ledger, seen in (
        ("images", counted.images, len(watch.second)),
        ("optimizer_steps", counted.optimizer_steps, len(watch.gradients)),
        ("reward_calls", counted.reward_calls, scored),
    ):
        if ledger != seen:
            problems.append(f"{name}: the ledger has {ledger}, and there were {seen}")
    return violations(problems)
