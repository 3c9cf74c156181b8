"""A small run folder with numbers drawn at random, written as a real run writes its own.

Two rewards, two seeds, the two controls and three methods; one cell failed, one pairing does not
apply. The numbers have the shape of real ones: methods learn at different rates, seeds differ, and
diversity falls as the reward rises.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from results import measuring, metrics, records, store
from results.diversity import pairwise_cosine_distance
from results.image_statistics import STATISTICS

PROMPTS = (
    "a fox, fluent style, on a blue background",
    "an owl, noto style, on a white background",
    "a pizza, twemoji style, on a red background",
    "a turtle, fluent style, on a black background",
)
REWARDS = {"style": 0.3, "colourfulness": 0.32}
GAIN = {"dag": 0.25, "ddpo": 0.12, "alignprop": 0.4}
CALLS_PER_IMAGE = {"dag": 11, "ddpo": 1, "alignprop": 1}
PROTOCOL = "5f1c0a7e"
BUDGET = 128
EVALUATIONS = 4
IMAGES = 4
COLOURS = [(66, 120, 214), (250, 250, 250), (214, 58, 52), (24, 24, 24)]


@dataclass
class Synthetic:
    """Writes the run into ``folder``."""

    folder: Path
    seeds: Sequence[int] = (0, 1)
    prompts: Sequence[str] = PROMPTS
    rewards: Sequence[str] = tuple(REWARDS)
    methods: Sequence[str] = tuple(GAIN)
    measured: bool = False
    """Whether metrics are computed and written too, which takes a second or two."""
    validated: bool = False
    """Whether the checkpoint is picked on validation, the third of four, and sampled at eta 0."""
    anchors: Mapping[str, records.AnchorRecord] = field(default_factory=dict)

    def write(self) -> Path:
        """All cells, ``ddpo--style--s1`` failed and ``alignprop`` on the second reward refused."""
        cells = self.cell_ids()
        store.write_json(self.folder / "run.json", self.run_record(cells))
        for cell_id in cells:
            self.write_cell(cell_id)
        if self.measured:
            run = store.read_run(self.folder)
            for metric in metrics.registry():
                measuring.measure_and_write(run, metrics.load(metric))
        return self.folder

    def cell_ids(self) -> list[str]:
        """All of them, ``base`` first."""
        cells = [f"base--none--s{seed}" for seed in self.seeds]
        for reward in self.rewards:
            for method in ("best-of-n", *self.methods):
                cells += [f"{method}--{reward}--s{seed}" for seed in self.seeds]
        return cells

    def run_record(self, cells: list[str]) -> records.RunRecord:
        titles = {"base": "Base", "best-of-n": "Best of n", "dag": "DAG-DB", "ddpo": "DDPO-IS"}
        return records.RunRecord(
            suite="synthetic",
            suite_config={"name": "synthetic", "budget": {"images": BUDGET}},
            protocol=PROTOCOL,
            anchors=dict(self.anchors),
            anchors_note="measured once" if self.anchors else "",
            command="python -m benchmark run --suite synthetic",
            methods={
                method: records.MethodInfo(
                    title=titles.get(method, method.title()),
                    paper="" if method in ("base", "best-of-n") else "2305.13301",
                    trains=method not in ("base", "best-of-n"),
                )
                for method in ("base", "best-of-n", *self.methods)
            },
            rewards={
                reward: records.RewardInfo(
                    version="1",
                    unit="probability",
                    range=(0.0, None),
                    differentiable=reward == "style",
                    source="drawn at random",
                    needs_prompt=reward == "colourfulness",
                )
                for reward in self.rewards
            },
            seeds=list(self.seeds),
            unscored={"background": "prompt 'a fox' asks for no background"},
            cells=cells,
        )

    def write_cell(self, cell_id: str) -> None:
        method, reward, seed = cell_id.split("--")
        folder = store.cell_folder(self.folder, cell_id)
        if method == "alignprop" and reward == "colourfulness":
            reason = "needs a reward gradient; colourfulness has none"
            status = records.StatusRecord(state="not_applicable", reason=reason)
            store.write_json(folder / "status.json", status)
            return
        store.write_json(
            folder / "config.json", self.config(cell_id, method, reward, int(seed[1:]))
        )
        store.write_json(folder / "environment.json", self.environment())
        if cell_id == "ddpo--style--s1":
            store.write_json(folder / "status.json", failed_status())
            return
        self.write_numbers(folder, method, reward, int(seed[1:]))

    def config(self, cell_id: str, method: str, reward: str, seed: int) -> records.CellConfig:
        return records.CellConfig(
            cell_id=cell_id,
            method=method,
            reward=reward,
            seed=seed,
            suite="synthetic",
            model={"name": "emoji", "sampling_steps": 10, "guidance_scale": 3.0, "eta": 1.0},
            method_config={} if method == "base" else {"learning_rate": 0.01},
            budget_images=BUDGET,
            train_prompts=["a dog, noto style, on a red background"],
            evaluation_prompts=list(self.prompts),
            images_per_prompt=IMAGES,
            evaluations=EVALUATIONS,
            rewards=list(self.rewards),
            protocol=PROTOCOL,
            validation_prompts=["a bear"] if self.validated else [],
            validation_images_per_prompt=2 if self.validated else 0,
            checkpoint="best-on-validation" if self.validated else "last",
            etas=[1.0, 0.0] if self.validated else [],
        )

    def environment(self) -> records.Environment:
        return records.Environment(
            commit="0123456789abcdef0123456789abcdef01234567",
            dirty=False,
            versions={"torch": "2.15.0", "diffusers": "0.42.0"},
            python="3.11.7",
            platform="Linux",
            cpu="a processor",
            cpu_threads=1,
            gpu=None,
            command="python -m benchmark run --suite synthetic",
        )

    def write_numbers(self, folder: Path, method: str, reward: str, seed: int) -> None:
        """Rounds, evaluations with their features, pictures, and the status last."""
        random = np.random.default_rng([seed, len(method), len(reward)])
        points = range(1, EVALUATIONS + 1) if method in GAIN else [0]
        for point in points:
            share = point / EVALUATIONS
            record, features = self.evaluation(random, method, reward, seed, share)
            store.save_features(store.features_path(folder, record.round), features)
            store.append_jsonl(folder / "evaluations.jsonl", record)
            if method in GAIN:
                store.append_jsonl(folder / "metrics.jsonl", round_record(record))
        if self.validated and method != "best-of-n":
            store.append_jsonl(folder / "samplers.jsonl", at_eta_0(record))
        self.write_samples(folder, method, seed)
        status = records.StatusRecord(
            state="done",
            seconds=record.training_seconds + 21.5,
            seconds_by_phase={
                "setup": 1.5,
                "rollout": record.training_seconds * 0.3,
                "reward": record.training_seconds * 0.1,
                "loss": record.training_seconds * 0.6,
                "evaluation": 20.0,
            },
            peak_memory_bytes=int(2.1 * 2**30) + 2**25 * seed,
            counts=record.counts,
        )
        store.write_json(folder / "status.json", status)

    def evaluation(
        self, random: np.random.Generator, method: str, reward: str, seed: int, share: float
    ) -> tuple[records.EvaluationRecord, dict[str, np.ndarray]]:
        # The same for every cell: evaluation starts from the same noise.
        shape = [len(self.prompts), IMAGES]
        common = np.random.default_rng(0)
        noise = common.normal(0, 0.08, shape)
        directions = common.normal(0, 0.5, [*shape, 16])
        # Rewards but the first vary by themselves too, or all would be one quantity.
        own = [common.normal(0, 0.05 * (index > 0), shape) for index in range(len(self.rewards))]
        values = {
            name: REWARDS.get(name, 0.5)
            + noise
            + (each - each.mean(axis=1, keepdims=True))
            + gain(random, method, share, name == reward)
            for name, each in zip(self.rewards, own, strict=True)
        }
        spread = 1 - GAIN.get(method, 0) * share * random.uniform(0.5, 0.8)
        vectors = (1 + directions * spread).astype(np.float32)
        features = {"scorer": vectors, "efficientnet-lite0": vectors[..., :8] * 0.7 + 0.3}
        trained = method in GAIN
        statistics = {
            name: (0.5 + noise + (0.1 * share if trained and name == "saturation" else 0)).tolist()
            for name in STATISTICS
        }
        # Noise takes away half of what dag gains, a flip nothing.
        lost = 0.5 * GAIN["dag"] * share if method == "dag" else 0.0
        augmented = {
            name: {"flip": values[name].tolist(), "noise": (values[name] - 0.01 - lost).tolist()}
            for name in self.rewards
            if name == reward or method == "base"
        }
        record = records.EvaluationRecord(
            round=round(share * 8),
            images=round(BUDGET * share),
            counts=work(method, share),
            training_seconds=share * (60 + 5 * len(method)) * (1 + 0.1 * seed),
            rewards={name: value.tolist() for name, value in values.items()},
            diversity={name: pairwise_cosine_distance(f) for name, f in features.items()},
            bad_images={
                "non_finite": 0,
                "black": 0,
                "constant": 1 if method == "ddpo" and share == 1 else 0,
            },
            sampling_images_per_second=7.5 + seed,
            image_statistics=statistics,
            path_kl=[[3 * share + 0.1 * seed]] * len(self.prompts) if trained else [],
            augmented=augmented,
            validation=[[0.5 - abs(share - 0.75), 0.5]] if self.validated and trained else [],
        )
        return record, features

    def write_samples(self, folder: Path, method: str, seed: int) -> None:
        """Pictures of a disc, larger for methods that gain more."""
        random = np.random.default_rng([seed if method in GAIN else 0, 5])
        for prompt in range(len(self.prompts)):
            for image in range(IMAGES):
                content = picture(random, COLOURS[prompt % 4], 14 + 30 * GAIN.get(method, 0))
                store.write_bytes(store.sample_path(folder, prompt, image), content)


def gain(random: np.random.Generator, method: str, share: float, trained_on: bool) -> float:
    """What a method adds to a reward after a share of its training."""
    best_of_n = method == "best-of-n"
    mean = GAIN.get(method, 0.1 if best_of_n else 0.0) * (1 if trained_on else -0.3)
    if method in GAIN:
        return mean * share**0.7 + random.normal(0, 0.015)
    return mean + (random.normal(0, 0.01) if best_of_n else 0.0)


def work(method: str, share: float) -> records.Counts:
    """What a method has done after a share of its training."""
    images = round(BUDGET * share)
    calls = BUDGET if method == "best-of-n" else images * CALLS_PER_IMAGE.get(method, 0)
    gradient = method == "alignprop"
    return records.Counts(
        # Best-of-n samples as many images as the others, and does no more.
        unet_forward=images * 30 if method in GAIN else BUDGET * 20 * (method == "best-of-n"),
        unet_backward=images * 10 if method in GAIN else 0,
        vae_decode=calls,
        reward_calls=calls,
        reward_gradient_calls=calls if gradient else 0,
        images=images,
        optimizer_steps=round(share * 8),
    )


def round_record(evaluation: records.EvaluationRecord) -> records.RoundRecord:
    """A training round that ends where ``evaluation`` was made."""
    return records.RoundRecord(
        round=evaluation.round,
        images=evaluation.images,
        counts=evaluation.counts,
        seconds={"rollout": evaluation.training_seconds},
        metrics={"reward_mean": 0.5, "loss": float("nan")},
    )


def at_eta_0(evaluation: records.EvaluationRecord) -> records.SamplerRecord:
    """The same images, each 0.05 better."""
    return records.SamplerRecord(
        eta=0.0,
        round=evaluation.round,
        rewards={
            name: [[value + 0.05 for value in images] for images in prompts]
            for name, prompts in evaluation.rewards.items()
        },
        diversity=evaluation.diversity,
        bad_images={"non_finite": 0, "black": 1, "constant": 0},
        sampling_images_per_second=8.0,
    )


def failed_status() -> records.StatusRecord:
    """A cell that ran out of memory."""
    return records.StatusRecord(
        state="failed",
        reason="RuntimeError: out of memory",
        traceback="Traceback (most recent call last):\n  ...\nRuntimeError: out of memory\n",
        seconds=4.0,
    )


def picture(random: np.random.Generator, background: tuple[int, ...], radius: float) -> bytes:
    """A 64 x 64 PNG of a coloured disc with two eyes."""
    image = Image.new("RGB", (64, 64), background)
    draw = ImageDraw.Draw(image)
    x, y = 32 + random.normal(0, 4, 2)
    fill = tuple(int(value) for value in random.integers(60, 240, 3))
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=fill)
    for side in (-1, 1):
        eye = x + side * radius * 0.4
        draw.ellipse([eye - 3, y - 6, eye + 3, y], fill=(20, 20, 20))
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def as_version_1(folder: Path) -> Path:
    """The folder as a program of before protocols named their checkpoint would have left it."""
    new = {
        "run.json": ("protocol_content", "anchors", "anchors_note"),
        "config.json": ("validation_prompts", "validation_images_per_prompt", "checkpoint", "etas"),
        "evaluations.jsonl": ("validation",),
    }
    for path in folder.glob("cells/*/samplers.jsonl"):
        path.unlink()
    for name, fields in new.items():
        for path in (*folder.glob(name), *folder.glob(f"cells/*/{name}")):
            records = [json.loads(line) for line in _lines(path)]
            for record in records:
                if "schema_version" in record:
                    record["schema_version"] = 1
                for each in fields:
                    del record[each]
            path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def _lines(path: Path) -> list[str]:
    text = path.read_text()
    return text.splitlines() if path.suffix == ".jsonl" else [text]
