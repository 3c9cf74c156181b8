"""Options of the forward-looking flow that DAG-DB and DAG-KL share (arXiv 2406.00633)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

Beta = Annotated[
    float,
    Field(
        gt=0,
        description="Inverse temperature: log R = beta r, in the unit of 'beta_unit'. Released "
        "100 (on the mean over dimensions) for ImageReward, whose spread is about 1; 100, since at "
        "20 a short run drifts. Keep beta times the reward's deviation alike across rewards.",
    ),
]
BetaUnit = Annotated[
    Literal["mean", "sum"],
    Field(
        description="The log-density unit beta is stated in. At zero loss images follow "
        "exp(D beta r) for 'mean', D the latent's dimensions, and exp(beta r) for 'sum'. 'mean', "
        "as released.",
    ),
]
BetaAnneal = Annotated[
    Literal["linear", "constant"],
    Field(
        description="Whether beta rises linearly from 0 over the first 'beta_anneal_share' of "
        "the rounds, as released, or is constant.",
    ),
]
BetaAnnealShare = Annotated[
    float,
    Field(gt=0, le=1, description="Share of the rounds over which beta rises. 0.5, as released."),
]
BetaAnnealFrom = Annotated[
    int,
    Field(
        ge=0,
        le=1,
        description="Number of the first round in the anneal. As released it is 0, which makes "
        "the first round's target flat; 1, because a short run cannot spare a round.",
    ),
]
RewardUnit = Annotated[
    Literal["raw", "initial_std"],
    Field(
        description="'raw', as in the paper, or rewards less the mean and over the standard "
        "deviation of the first round's images, both then fixed: the same target with a beta "
        "that carries over between rewards.",
    ),
]
CleanPrediction = Annotated[
    Literal["conditional", "guided", "untrained"],
    Field(
        description="Noise prediction behind x0_hat: the conditional branch alone, as released, "
        "the guided one, or the conditional branch of the untrained model, at the price of T more "
        "network calls a trajectory: then the reward of a state does not change while its policy "
        "does, which the flow network would have to follow.",
    ),
]
FreshRewards = Annotated[
    bool,
    Field(
        description="Predict and score x0_hat anew for both ends of every transition with the "
        "current weights, as released: about 2T reward calls a trajectory in place of T + 1. "
        "False: the rollout's predictions, scored once.",
    ),
]
CentreStates = Annotated[
    bool,
    Field(
        description="Begin the log flow of each timestep at the level that balances its mean "
        "reward in the first round, instead of at zero as released; see forward_looking. False: "
        "'flow_levels' does more. Not with 'fresh_rewards', which knows no rewards of states "
        "before it trains.",
    ),
]
FlowLevels = Annotated[
    Literal["learned", "round"],
    Field(
        description="Whether the level of log F at each timestep of a prompt is left to the flow "
        "network, as released, or fitted to each round in closed form: the constants that make the "
        "residuals of every (prompt, timestep) zero on average, as the rollout left them. 'round': "
        "a short run's network swings about those levels by as much as the residuals spread, and "
        "the policy's gradient carries that as noise. Not with 'fresh_rewards'.",
    ),
]
DetachNextFlow = Annotated[
    bool,
    Field(
        description="Stop the gradient of the flow of x_s. False, as released: the residual is "
        "descended through both flows.",
    ),
]
SubtrajectoryLength = Annotated[
    int,
    Field(
        ge=1,
        description="Consecutive transitions whose residuals are summed before the square. 1 is "
        "detailed balance, as released; more is subtrajectory balance (arXiv 2209.12782), and the "
        "chain's length trajectory balance (arXiv 2201.13259) from a drawn step on. With 1 what "
        "the reward says reaches early states one transition at a time. Not above "
        "'micro_batch_size': a subtrajectory is gone through at once.",
    ),
]
FlowLearningRate = Annotated[
    float,
    Field(
        gt=0,
        description="AdamW learning rate of the flow network. Released 3e-4 for 200 updates; "
        "1e-3. With 'flow_levels: round' the network has no levels to find, and one at 1e-2 left a "
        "short run with larger residuals (docs/tuning.md). With 'learned', 1e-2.",
    ),
]
FlowGradientClip = Annotated[
    float, Field(gt=0, description="Largest norm of the flow's gradient. 1, as released.")
]
RegulariserWeight = Annotated[
    float,
    Field(
        ge=0,
        description="Weight lambda of the mean squared distance of the noise prediction from the "
        "one that sampled the round (not the pretrained model's). 1, as released.",
    ),
]


class FlowConfig(Protocol):
    """The options of the forward-looking flow."""

    @property
    def micro_batch_size(self) -> int: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def reduction(self) -> Literal["mean", "sum"]: ...
    @property
    def beta(self) -> float: ...
    @property
    def beta_unit(self) -> Literal["mean", "sum"]: ...
    @property
    def beta_anneal(self) -> Literal["linear", "constant"]: ...
    @property
    def beta_anneal_share(self) -> float: ...
    @property
    def beta_anneal_from(self) -> int: ...
    @property
    def reward_unit(self) -> Literal["raw", "initial_std"]: ...
    @property
    def clean_prediction(self) -> Literal["conditional", "guided", "untrained"]: ...
    @property
    def fresh_rewards(self) -> bool: ...
    @property
    def centre_states(self) -> bool: ...
    @property
    def flow_levels(self) -> Literal["learned", "round"]: ...
    @property
    def detach_next_flow(self) -> bool: ...
    @property
    def flow_learning_rate(self) -> float: ...
    @property
    def flow_gradient_clip(self) -> float: ...
    @property
    def learning_rate_decay(self) -> Literal["constant", "cosine"]: ...


def check_centre(config: FlowConfig) -> None:
    """Raises ``ValueError`` where ``centre_states`` has nothing to be taken from."""
    if config.centre_states and config.fresh_rewards:
        raise ValueError("centre_states needs the rollout's rewards: set it to false")
    if config.flow_levels == "round" and config.fresh_rewards:
        raise ValueError("flow_levels 'round' needs the rollout's rewards: set it to learned")


RELEASED: dict[str, dict[str, Any]] = {
    "ml-diffusion-alignment-gflownet:imagereward": {
        "prompts_per_round": 512,
        "images_per_prompt": 1,
        "prompt_draw": "independent",
        "initial_noise": "independent",
        "updates_per_round": 2,
        "micro_batch_size": 8,
        "timestep_fraction": 1.0,
        "step_weight": "uniform",
        "learning_rate": 3e-4,
        "flow_learning_rate": 3e-4,
        "beta": 100.0,
        "beta_anneal_from": 0,
        "reward_unit": "raw",
        "fresh_rewards": True,
        "centre_states": False,
        "flow_levels": "learned",
        "regulariser_weight": 1.0,
    },
}
"""Its default configuration. Its eight processes draw with the same seed, so of the 512
trajectories only 64 are distinct unless something sets the generators apart."""
