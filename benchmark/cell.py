"""One cell: trains a policy with a method on a reward, evaluates it, and leaves its folder.

Of its evaluations one is reported, picked by the rule of the protocol: pictures, densities and
weights are those of that checkpoint, and it alone is sampled with the further noises of the
sampler, once training is over.

Runs in a process of its own, see ``benchmark.workers``. Whatever goes wrong ends as a status file
with state ``failed`` or ``diverged``, its reason and traceback. A cell that is stopped, in whatever
way, goes on from its newest checkpoint when it is run again, see ``benchmark.training_state``.

Where several processes train it together (``benchmark.ranks``), the first one runs it as if it were
alone, and the others follow: they take part in the rounds, wait for the evaluations, and write
nothing.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any

import methods
from benchmark import composites, energy, memory
from benchmark.cell_evaluation import CellEvaluations
from benchmark.checkpoints import Checkpoint, Checkpoints
from benchmark.evaluation import evaluation_rounds
from benchmark.jobs import CellJob
from benchmark.policies import build_policy
from benchmark.progress import CellProgress
from benchmark.ranks import OVER, Ranks
from benchmark.scoring import CountedReward, counted_gradient
from benchmark.stopping import Stop, Stopped
from benchmark.training_state import Position, TrainingCheckpoints, identity
from diffusion.divergence import Diverged
from diffusion.ledger import Ledger
from methods import processes
from results import store
from results.records import (
    Counts,
    RoundRecord,
    StatusRecord,
)
from results.states import State
from rewards import Reward

Notify = Callable[[CellProgress], None]
TAKEN_UP = "taken up"
"""Under which the first process tells the name of the checkpoint that it goes on from."""


def run_cell(
    job: CellJob, notify: Notify, stop: Stop | None = None, ranks: Ranks | None = None
) -> StatusRecord:
    """Run the cell to its end; the status it returns is also the last file it writes.

    Where an earlier attempt was cut short it goes on from there. Asked to ``stop``, it saves where
    it is and ends with the reason ``interrupted``. Raises ``processes.Lost``, leaving no status,
    where the other processes of the cell do not answer: why is theirs to say.
    """
    stop, ranks = stop or Stop(), ranks or Ranks()
    ledger = Ledger()
    training = TrainingCheckpoints(job.folder, identity(job), job.checkpoint_every)
    store.write_json(job.folder / "config.json", job.config)
    store.write_json(job.folder / "environment.json", job.environment)
    store.write_json(job.folder / "status.json", StatusRecord(state="running", **job.identity))
    state: State = "done"
    reason, trace = "", ""
    try:
        with ledger.phase("other"):  # all that has no phase of its own
            _CellRun(job, ledger, notify, stop, training, ranks).run()
    except Stopped:
        state, reason = "interrupted", "interrupted"
    except processes.Lost:
        if not stop.requested:
            raise
        state, reason = "interrupted", "interrupted"
    except Exception as error:
        state, reason, trace = failure(error)
    finally:
        ranks.tell(OVER)
    history = training.history
    status = StatusRecord(
        **job.identity,
        state=state,
        reason=reason,
        traceback=trace,
        seconds=history.seconds,
        seconds_by_phase=ledger.seconds,
        training_seconds_by_phase=ledger.training_seconds,
        network_seconds=memory.if_host(ledger.network_seconds),
        joules=ledger.joules,
        **history.peaks,
        counts=Counts(**ledger.counts()),
        resumed_after=history.resumed_after,
        notes=history.notes,
    )
    store.write_json(job.folder / "status.json", status)
    if status.state == "done":
        training.remove()
    return status


def follow_cell(job: CellJob, ranks: Ranks, stop: Stop) -> None:
    """Train the cell together with the process that runs it; raises what goes wrong here."""
    ledger = Ledger()
    training = TrainingCheckpoints(job.folder, identity(job))
    try:
        _CellRun(job, ledger, lambda progress: None, stop, training, ranks).run()
    except Stopped:
        pass
    except processes.Lost:
        if not stop.requested:
            raise


def failure(error: Exception) -> tuple[State, str, str]:
    """State, reason and traceback of a cell that has raised an error, inside its handler."""
    trace = traceback.format_exc()
    print(trace, file=sys.stderr, flush=True)
    return "diverged" if isinstance(error, Diverged) else "failed", _reason(error), trace


class _CellRun:
    """The parts of a running cell."""

    def __init__(
        self,
        job: CellJob,
        ledger: Ledger,
        notify: Notify,
        stop: Stop,
        training: TrainingCheckpoints,
        ranks: Ranks,
    ) -> None:
        self.job, self.ledger, self.notify = job, ledger, notify
        self.stop, self.training, self.ranks = stop, training, ranks
        self.round = self.evaluated = 0
        config = job.config
        notify(CellProgress(0.0, "loading"))
        with ledger.phase("setup"), stop.interruptible():
            self.policy = build_policy(job.model, config.seed, ledger)
            ledger.energy = energy.counter(self.policy.device)
            scoring = [n for n in config.rewards if ranks.leads or n == config.reward]
            scored_by = {name: composites.load(name, config.composites) for name in scoring}
            self.method = self._build_method(scored_by.get(config.reward))
            if ranks.leads:
                self.evaluations = CellEvaluations(
                    job, self.method, scored_by, notify, stop, training.history
                )
        self.checkpoints = Checkpoints(config.checkpoint)
        self._go_on()

    def _build_method(self, reward: Reward | None) -> methods.Method:
        config = self.job.config
        kind = methods.get(config.method)
        task = methods.Task(
            policy=self.policy,
            reward=CountedReward(reward, self.ledger),
            reward_gradient=counted_gradient(reward, self.ledger),
            prompts=tuple(config.train_prompts),
            seed=config.seed,
            images=config.budget_images,
            evaluation_images=len(config.evaluation_prompts) * config.images_per_prompt,
        )
        return kind(task, kind.Config.model_validate(config.method_config))

    def _go_on(self) -> None:
        """Take up the newest checkpoint, if there is one."""
        with self.ledger.phase("setup"):
            found = self._found()
            processes.total(0.0)  # all have read it: from here on it may be removed
            if found is None:
                return
            position, state = found
            self.round, self.evaluated = position.round, position.evaluations
            if self.method.trains:
                self.policy.load_state_dict(state["policy"])
            self.method.load_state_dict(state["method"])
            self.checkpoints.load_state_dict(state["checkpoints"])
        if self.ranks.leads:  # whose ledger has the work of all
            self.ledger.go_on(state["ledger"])

    def _found(self) -> tuple[Position, dict[str, Any]] | None:
        """The checkpoint that the first process takes up; the others read the same."""
        if not self.ranks.leads:
            name = self.ranks.hear(TAKEN_UP)
            return self.training.read(name) if name else None
        found = self.training.take_up()
        self.ranks.tell(TAKEN_UP, self.training.taken_up if found else "")
        return found

    def _save(self) -> None:
        """Write a checkpoint of the cell as it is."""
        with self.ledger.phase("saving"):
            state = {
                "policy": self.policy.state_dict() if self.method.trains else {},
                "method": self.method.state_dict(),
                "checkpoints": self.checkpoints.state_dict(),
                "ledger": self.ledger.state_dict(),
            }
            self.training.save(Position(self.round, self.evaluated), state)

    def run(self) -> None:
        """Train through the budget, evaluating on the way, and save what remains."""
        rounds = self.method.rounds if self.method.trains else 0
        evaluate_after = evaluation_rounds(rounds, self.job.config.evaluations) or [0]
        for index in range(self.round, rounds + 1):
            if index > self.round:
                self._train_round(index, rounds)
            if index in evaluate_after[self.evaluated :]:
                self._evaluate(index, rounds)
        if not self.ranks.leads:
            return
        self._draw_further(self.checkpoints.picked)
        with self.ledger.phase("saving"):
            picked = self.checkpoints.picked
            picked.save(self.job.folder, self.policy, self.job.config)

    def _train_round(self, index: int, rounds: int) -> None:
        with self.training.history.training(), self.ledger.training():
            metrics = self.method.step()
        self.ranks.add_costs(self.ledger)
        self.round = index
        if self.ranks.leads:
            self._record(index, rounds, metrics)
        # One of several may see the request after its round's end: all stop after the same.
        stopping = processes.largest(float(self.stop.requested)) > 0
        if self.ranks.leads and (stopping or self.training.due(index)):
            self._save()
        if stopping:
            raise Stopped

    def _record(self, index: int, rounds: int, metrics: dict[str, float]) -> None:
        """Write and tell what a round gave."""
        counts = Counts(**self.ledger.counts())
        record = RoundRecord(
            round=index,
            images=counts.images,
            counts=counts,
            seconds=dict(self.ledger.training_seconds),
            metrics=metrics,
        )
        store.append_jsonl(self.job.folder / "metrics.jsonl", record)
        detail = f"round {index}/{rounds}, {counts.images} images"
        self.notify(CellProgress(index / rounds, "training", detail, metrics.get("reward_mean")))

    def _evaluate(self, index: int, rounds: int) -> None:
        """Evaluate, in the first process alone, so that the numbers do not depend on how many there
        are; the others wait."""
        told = f"evaluated {self.evaluated}"
        if not self.ranks.leads:
            self.ranks.hear(told)
            self.evaluated += 1
            return
        if self.method.trains:
            self._save()  # what is interrupted from here on is not looked at any more
        with self.method.evaluated():
            evaluation, grids, validation = self.evaluations.evaluate(index, rounds)
            weights = self.policy.state_dict if self.method.trains else None
            self.checkpoints.add(index, evaluation, grids, validation, weights)
        self.evaluated += 1
        self._save()
        self.stop.check()
        self.ranks.tell(told)

    def _draw_further(self, picked: Checkpoint) -> None:
        """The picked checkpoint with the further samplers."""
        if picked.weights:
            self.policy.load_state_dict(picked.weights)
        # Best-of-n chooses among samples: with another sampler it would have to draw all again.
        for eta in self.job.config.etas[1:] if self.method.candidates == 1 else []:
            self.evaluations.sample_at(eta, picked.round)


def _reason(error: Exception) -> str:
    """The error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
