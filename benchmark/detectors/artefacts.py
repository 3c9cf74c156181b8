"""Artefacts: where a preference model is gamed, pictures get halos, grids, and shapes that do not
hold together, which it does not see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.detectors import Detector, register
from results.detections import Picture

WEIGHTS = "diffdoctor"
SIDE = 512
"""Pixels that both sides are brought to."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MIT_B5: dict[str, Any] = {
    "depths": (3, 6, 40, 3),
    "hidden_sizes": (64, 128, 320, 512),
    "num_attention_heads": (1, 2, 5, 8),
    "decoder_hidden_size": 768,
}
"""Sizes of the released network, in transformers' words."""


@register
class Artefacts(Detector):
    """Share of the picture that is expected to be an artefact.

    DiffDoctor's detector gives each pixel the probability of lying in one, sigmoid of its one
    logit; the mean over the pixels of 512 x 512 is the expected share of them. ``file`` and
    ``sizes`` are in place of the released network. Raises ``DamagedWeights`` for another file than
    the released one, and for one whose tensors are not exactly the network's.
    """

    name, version, title = "artefacts", "1", "Artefacts"
    unit = "share of pixels"
    sign_of = "halo, grid and other artefacts"
    network = "DiffDoctor SegFormer-B5"
    source = "Wang et al., DiffDoctor, arXiv 2501.12382, MIT; begun from MiT-B5, for research alone"
    weights = WEIGHTS

    def __init__(self, file: Path | None = None, sizes: Mapping[str, Any] = MIT_B5) -> None:
        from rewards import weights

        file = file or weights.only_path(WEIGHTS)
        self.version = f"1 ({weights.tag(file)})"
        self.segmenter = _load(file, sizes)

    def values(self, pictures: Sequence[Picture]) -> list[float]:
        return [float(self.probabilities(picture).mean()) for picture in pictures]

    def probabilities(self, picture: Picture) -> Any:
        """Of each pixel, ``[512, 512]``."""
        import torch

        from rewards.networks.preprocessing import normalised

        image = torch.from_numpy(picture.copy()).movedim(-1, 0)[None].float()
        # As the release resizes, in 8 bits and without antialiasing.
        levels = _resized(image).round()
        with torch.no_grad():
            logits = self.segmenter(normalised(levels / 255, MEAN, STD)).logits
        return _resized(logits).sigmoid()[0, 0]


def _resized(images: Any) -> Any:
    from torch.nn.functional import interpolate

    return interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False)


def _load(file: Path, sizes: Mapping[str, Any]) -> Any:
    """The network with all its tensors; one that is missing would be drawn at random."""
    import torch
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    from rewards.networks.clip import read_state
    from rewards.scorer import DamagedWeights

    try:
        state = read_state(file)
        with torch.random.fork_rng(devices=[]):
            # Not load_state_dict: the file has the names of an older transformers.
            segmenter, told = SegformerForSemanticSegmentation.from_pretrained(
                None,
                config=SegformerConfig(**sizes, num_labels=1),
                state_dict=state,
                output_loading_info=True,
                dtype=torch.float32,
            )
    except Exception as error:  # whatever torch and transformers make of bad files
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise DamagedWeights(f"{file} is no artefact detector: {reason}") from error
    wrong = [told[kind] for kind in ("missing_keys", "mismatched_keys", "unexpected_keys")]
    if unfit := sorted(map(str, set().union(*wrong))):
        raise DamagedWeights(f"{file} is no artefact detector: {unfit[0]} does not fit")
    return segmenter.eval().requires_grad_(False)
