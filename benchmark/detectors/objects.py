"""Objects in pictures: a reward that compares with the prompt, such as CLIPScore or ImageReward,
may rise where what was asked for is drawn more than once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.detectors import Detector, load_whole, register
from results.detections import Picture

WEIGHTS = "detr"
CONFIDENCE = 0.9
"""Above which an object counts: that of the release's own example, and of GenEval's counting."""
UNNAMED = "N/A"
"""Name of the eleven numbers that COCO gives to no kind of object."""


@dataclass(frozen=True)
class Object:
    """One object in a picture."""

    kind: str
    confidence: float
    box: tuple[float, float, float, float]
    """Left, top, right and bottom in pixels."""


@register
class Objects(Detector):
    """How many objects of COCO's 80 kinds DETR finds with confidence above 0.9.

    N. Carion et al., "End-to-End Object Detection with Transformers", ECCV 2020. Its queries are
    matched to objects one to one, so that no box has to be suppressed for another. ``folder`` is a
    checkpoint in place of the released one. Raises ``DamagedWeights`` for another file than the
    released one, and for one whose tensors are not those of the network.
    """

    name, version, title, unit = "objects", "1", "Objects", "objects a picture"
    sign_of = "what was asked for drawn more than once"
    network = "DETR"
    source = "DETR with ResNet-50 on COCO, Apache-2.0"
    weights = WEIGHTS

    def __init__(self, folder: Path | None = None) -> None:
        from transformers import DetrForObjectDetection, DetrImageProcessor

        from rewards import weights

        folder = folder or weights.folder(WEIGHTS)
        self.version = f"1 ({weights.tag(*weights.tensor_files(folder))})"
        self.detector = load_whole(DetrForObjectDetection, folder, "DETR")
        # Its defaults are the release's: the shorter side 800, the longer 1333 at most.
        self.processor = DetrImageProcessor()

    def values(self, pictures: Sequence[Picture]) -> list[float]:
        return [float(len(self.objects(picture))) for picture in pictures]

    def objects(self, picture: Picture) -> list[Object]:
        """What is found, the surest first."""
        import torch

        with torch.no_grad():
            outputs = self.detector(**self.processor(images=picture.copy(), return_tensors="pt"))
        (found,) = self.processor.post_process_object_detection(
            outputs, threshold=CONFIDENCE, target_sizes=[picture.shape[:2]]
        )
        kinds = self.detector.config.id2label
        objects = [
            Object(kinds[label], confidence, (box[0], box[1], box[2], box[3]))
            for label, confidence, box in zip(
                found["labels"].tolist(),
                found["scores"].tolist(),
                found["boxes"].tolist(),
                strict=True,
            )
            if kinds[label] != UNNAMED
        ]
        return sorted(objects, key=lambda each: -each.confidence)
