"""What a method is to the rest of the program, and the options several methods have.

A method is made for one ``Task``, trains the task's policy in place by ``rounds`` calls of
``step``, and can be stopped after any round and resumed from its ``state_dict`` and the policy's.
Both are found in its attributes: a new method need not write them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from diffusion.policy import Policy
from diffusion.randomness import generator
from methods import processes
from methods.state import attributes_state, load_attributes

RewardFunction = Callable[[torch.Tensor, list[str]], torch.Tensor]
"""Images float ``[n, 3, h, w]`` in [0, 1] and their prompts to rewards fp32 ``[n]``."""


class MethodConfig(BaseModel):
    """Options of a method; unknown ones are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @property
    def images_per_round(self) -> int:
        """Images that one round draws, which is the least that a budget can be."""
        return getattr(self, "prompts_per_round", 1) * getattr(self, "images_per_prompt", 1)


PromptsPerRound = Annotated[
    int,
    Field(
        ge=1,
        description="Prompts drawn for a round. Few, because a budget of hundreds of images needs "
        "many rounds more than it needs many prompts in each.",
    ),
]
ImagesPerPrompt = Annotated[
    int,
    Field(
        ge=1,
        description="Trajectories sampled for each prompt of a round. 8, so that the prompt's own "
        "mean and standard deviation can be taken from the round alone; the releases draw every "
        "trajectory's prompt anew (1).",
    ),
]
PromptDraw = Annotated[
    Literal["without_replacement", "independent"],
    Field(
        description="How a round's prompts are drawn: all distinct while there are enough of "
        "them, or each uniformly and independently as in the releases. Distinct by default: a "
        "small round that draws a prompt twice learns from fewer.",
    ),
]
UpdatesPerRound = Annotated[
    int,
    Field(
        ge=1,
        description="Optimizer steps a round, each on its own share of the round's trajectories.",
    ),
]
MicroBatchSize = Annotated[
    int,
    Field(
        ge=1,
        description="Most samples in one forward pass with gradient. A matter of memory only: "
        "gradients are accumulated. 16: one pass for each step of an update's trajectories.",
    ),
]
TimestepFraction = Annotated[
    float,
    Field(
        gt=0,
        le=1,
        description="Share of each trajectory's transitions that is trained on; which, says "
        "'timestep_draw'. Released 1.",
    ),
]
TimestepDraw = Annotated[
    Literal["random", "first"],
    Field(
        description="Which transitions the share is: drawn at random for each trajectory, or the "
        "first of the chain, from x_T on. With few sampling steps the last transitions hardly "
        "change the reward, so their scores are noise alone.",
    ),
]
InitialNoise = Annotated[
    Literal["independent", "shared"],
    Field(
        description="Whether each trajectory has its own x_T, as released, or the images of a "
        "prompt start from one, as in DanceGRPO (arXiv 2505.07818). What x_T does to the reward "
        "is out of the policy's hands: shared, it drops out of the advantage within the group.",
    ),
]
StepWeight = Annotated[
    Literal["uniform", "balanced"],
    Field(
        description="Weight of a transition in the loss: 1, as released, or in inverse proportion "
        "to the size of its score (diffusion.kernel.score_scale), mean 1. 'balanced', since with "
        "few sampling steps one late step, which hardly changes the image, makes up nine tenths "
        "of the variance of a uniform policy gradient.",
    ),
]
LearningRate = Annotated[
    float,
    Field(
        gt=0,
        description="AdamW learning rate of the policy. The releases take 3e-4 for 200 updates "
        "of hundreds of trajectories; a budget of hundreds of images in all needs far more.",
    ),
]
WeightDecay = Annotated[
    float, Field(ge=0, description="AdamW weight decay. 1e-4, as released by all but one.")
]
GradientClip = Annotated[
    float, Field(gt=0, description="Largest norm of the policy's gradient. 1, as released.")
]
Reduction = Annotated[
    Literal["mean", "sum"],
    Field(
        description="Whether log densities are averaged or summed over the latent's dimensions. "
        "'mean', as in every release; clips, coefficients and temperatures are in its unit.",
    ),
]
GuidanceInTraining = Annotated[
    bool,
    Field(
        description="Whether the noise prediction is guided in training as it is in sampling, "
        "with gradient through both branches. True, as released; without it the trained density "
        "is not the sampler's.",
    ),
]


@dataclass(frozen=True)
class Target:
    """The distribution of images, given a prompt, that a method is to make the policy sample.

    A formula in the base model's own density and the reward; that density is known for a model in
    closed form only (``diffusion/mixture.py``), where one can see whether the method gets there.
    """

    base: bool
    """Whether the base model's density is a factor of it."""
    beta: float | None
    """Inverse temperature of the factor exp(beta r), in nats of the whole image (log-densities
    summed over dimensions); ``None`` where there is no such factor."""

    def __str__(self) -> str:
        factors = ["p_base"] * self.base + ["exp(beta r)"] * (self.beta is not None)
        return " ".join(factors) or "none, it maximises"


@dataclass
class Task:
    """One cell: a policy to align with a reward, on prompts, within a budget."""

    policy: Policy
    reward: RewardFunction
    """Reference path, without gradient."""
    prompts: tuple[str, ...]
    """Training prompts."""
    seed: int
    images: int
    """Budget: training trajectories, each sampled to the end."""
    reward_gradient: RewardFunction | None = None
    """The same reward with gradients to the images; None if it has none."""
    evaluation_images: int = 1
    """Images of one evaluation, over which best-of-n spreads the budget."""

    def generator(self, *purpose: str | int) -> torch.Generator:
        """The generator of this seed for a purpose."""
        return generator(self.seed, *purpose)


NOT_STATE = ("task", "policy", "config")
"""Attributes of a method that training does not change, or that are saved by themselves."""


class Method:
    """A way to raise the reward of a policy's images."""

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    """arXiv number of the objective, empty for a control."""
    Config: ClassVar[type[MethodConfig]]
    RELEASED: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Settings of published code by name: options of ``Config`` that differ from its defaults."""
    needs_reward_gradient: ClassVar[bool] = False
    needs_stochastic_sampler: ClassVar[bool] = False
    """Whether the sampler must have eta > 0, so that transitions have a density."""
    trains: ClassVar[bool] = True
    extra: ClassVar[str] = ""
    """The extra of this project that installs what the method needs beyond its dependencies."""
    micro_batch_invariant: ClassVar[bool] = True
    """Whether an option ``micro_batch_size``, if there is one, only gathers the gradient in other
    parts; False where the micro-batch is part of the estimator."""
    on_policy_in_half_precision: ClassVar[bool] = True
    """Whether the importance ratio, if there is one, is 1 at a round's first update in bfloat16
    too; False where stored log densities are of latents before they are rounded."""
    several_processes: ClassVar[bool] = True
    """Whether a process group takes the step that one process would take, see
    ``methods/processes.py``; False if the method refuses to start in a group of several."""
    candidates: int = 1
    """Images drawn for each evaluation image, of which the one of highest reward is kept."""

    def __init__(self, task: Task, config: MethodConfig) -> None:
        """Raises ``ValueError`` when the task lacks what the method needs."""
        if reason := self.unavailable():
            raise ValueError(f"{self.name} {reason}")
        if self.needs_reward_gradient and task.reward_gradient is None:
            raise ValueError(f"{self.name} needs a reward with a gradient")
        if self.needs_stochastic_sampler and task.policy.eta <= 0:
            raise ValueError(f"{self.name} needs a stochastic sampler: eta is {task.policy.eta}")
        if not self.several_processes and processes.count() > 1:
            raise ValueError(
                f"{self.name} trains in one process, and the group has {processes.count()}"
            )
        self.task = task
        self.policy = task.policy
        self.round = 0

    @classmethod
    def unavailable(cls) -> str:
        """Why the method cannot run on this machine, such as a package that is not installed;
        empty if it can."""
        return ""

    @property
    def target(self) -> Target:
        """The distribution that zero loss means; by default none, the method maximises."""
        return Target(base=False, beta=None)

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """The policy as it is to be evaluated and saved inside; by default as it was trained."""
        yield

    @property
    def rounds(self) -> int:
        """Number of ``step`` calls in the budget; 0 for a method that does not train."""
        return 0

    def step(self) -> dict[str, float]:
        """Trains for one round; returns its metrics, ``reward_mean`` and ``reward_std`` first.

        A method with an importance ratio reports the largest |log ratio| of the round's first
        update as ``log_ratio_first``: 0 up to rounding, since that update is on-policy.
        """
        raise RuntimeError(f"{self.name} does not train")

    def state_dict(self) -> dict[str, Any]:
        """All that resuming needs beyond the policy's weights: tensors and plain values.

        By default a copy of what the attributes hold, see ``methods/state.py``. A method whose
        state is elsewhere overrides both; one that forgets some fails the conformance check "a
        stopped and resumed run is the straight run".
        """
        return attributes_state(self, NOT_STATE)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the method, made anew for the same task, where ``state`` was taken."""
        load_attributes(self, state, self.policy.device)


REGISTERED: dict[str, type[Method]] = {}


def register(method: type[Method]) -> type[Method]:
    """Class decorator: makes a method known by its name."""
    other = REGISTERED.setdefault(method.name, method)
    if other.__module__ != method.__module__:
        raise ValueError(f"two methods are called {method.name!r}")
    return method
