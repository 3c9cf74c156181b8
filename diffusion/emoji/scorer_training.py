"""The emoji scorer: a small image-text dual encoder in open_clip's own format, with a style head.

Trained as CLIP is (arXiv 2103.00020) on augmented composites, with one difference: an image's
positives are all captions of the batch that are *true* of it, whichever attributes they mention,
so that "a fox" is not pushed away from the picture beside "a fox, on a blue background".
"""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPTokenizer

from diffusion.emoji.catalogue import STYLES
from diffusion.emoji.composites import Composites, caption, draw_mentions
from diffusion.emoji.loop import Schedule, train
from diffusion.emoji.text import CONTEXT_LENGTH, save_tokenizer

STYLE_WEIGHT = 0.2


def model_config(vocabulary: int) -> dict:
    """open_clip ``model_cfg``: ModifiedResNet image tower at 64 px, text transformer."""
    return {
        "embed_dim": 192,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 2, 1], "width": 24, "head_width": 64},
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": vocabulary,
            "hf_tokenizer_name": "emoji",  # open_clip then reads the tokenizer beside the config
            "width": 128,
            "heads": 4,
            "layers": 3,
        },
    }


PREPROCESS = {
    "size": 64,
    "mode": "RGB",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "resize_mode": "squash",
}


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shift, zoom, blur, noise, brightness and contrast, each with its own strength an image.

    Images are in [-1, 1]. The blur and noise stand for what a decoder leaves of small details.
    """
    n, device = len(images), images.device

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(n, 1, 1, 1, generator=generator, device=device)

    zoom, shift_x, shift_y = uniform(0.85, 1.18), uniform(-0.12, 0.12), uniform(-0.12, 0.12)
    zero = torch.zeros_like(zoom)
    affine = torch.cat(
        [torch.cat([zoom, zero, shift_x], 3), torch.cat([zero, zoom, shift_y], 3)], 2
    )
    grid = F.affine_grid(affine[:, 0], list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    small = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    images = images.lerp(small, uniform(-0.3, 1.0).clamp(min=0))
    coarse = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2, mode="bilinear")
    images = images.lerp(coarse, uniform(-0.5, 0.9).clamp(min=0))
    noise = torch.randn(images.shape, generator=generator, device=device)
    images = images * uniform(0.8, 1.15) + uniform(-0.12, 0.12) + noise * uniform(0, 0.12)
    return images.clamp(-1, 1)


def true_of(facts: torch.Tensor, mentions: torch.Tensor) -> torch.Tensor:
    """Whether caption j is true of image i: bool ``[n, n]``.

    ``facts`` are the numbers of (subject, style, background) ``[n, 3]``; a caption states its
    image's subject always, style and background where ``mentions`` ``[n, 2]`` says so.
    """
    same = facts[:, None] == facts[None, :]
    silent = ~mentions[None, :]
    return same[..., 0] & (same[..., 1:] | silent).all(dim=2)


def train_scorer(
    composites: Composites,
    tokenizer: CLIPTokenizer,
    weights: torch.Tensor,
    folder: Path,
    schedule: Schedule,
    batch_size: int,
    seed: int,
) -> nn.ModuleDict:
    """Train encoder and style head on pictures drawn in proportion to ``weights``."""
    config = model_config(len(tokenizer))
    with torch.random.fork_rng(devices=[]):  # layers initialise from the global generator
        torch.manual_seed(seed)
        model = open_clip.CLIP(**config).to(memory_format=torch.channels_last)
        style_head = nn.Linear(config["embed_dim"], 3)
    device = weights.device
    modules = nn.ModuleDict({"clip": model, "style_head": style_head}).to(device)
    subjects = {p.subject: index for index, p in enumerate(composites.pictures)}

    def loss(generator: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        # Half of the batch is drawn freely; the other half shows the same subjects in another
        # style or on another background, so that those words must be read too.
        first = composites.draw(batch_size // 2, weights, generator)
        numbers = torch.cat([first, _siblings(composites, first, subjects, generator)])
        images = augment(composites.render(numbers) * 2 - 1, generator)
        described = [composites.describe(number) for number in numbers.tolist()]
        mentions = draw_mentions(batch_size, generator)
        captions = [
            caption(subject, style if with_style else None, background if with_background else None)
            for (subject, style, background), (with_style, with_background) in zip(
                described, mentions.tolist(), strict=True
            )
        ]
        facts = torch.tensor([_fact(composites, number, subjects) for number in numbers.tolist()])
        facts = facts.to(device)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            image_features = model.encode_image(images)
        image_features = F.normalize(image_features.float(), dim=1)
        text_features = model.encode_text(_tokens(tokenizer, captions).to(device), normalize=True)
        logits = model.logit_scale.clamp(max=4.6).exp() * image_features @ text_features.T
        target = true_of(facts, mentions).float()
        rows = F.cross_entropy(logits, target / target.sum(1, keepdim=True))
        columns = F.cross_entropy(logits.T, target.T / target.T.sum(1, keepdim=True))
        style_logits = style_head(image_features) * 10
        style = F.cross_entropy(style_logits, facts[:, 1])
        hit = target.gather(1, logits.argmax(1, keepdim=True)).mean()
        total = (rows + columns) / 2 + STYLE_WEIGHT * style
        return total, {"style": style.detach(), "top1": hit}

    train(modules, loss, schedule, folder, seed)
    with torch.no_grad():  # the factor 10 above belongs to the head
        style_head.weight.mul_(10)
        style_head.bias.mul_(10)
    return modules.eval()


def _fact(composites: Composites, number: int, subjects: dict[str, int]) -> list[int]:
    subject, style, _ = composites.describe(number)
    return [subjects[subject], list(STYLES).index(style), number % 16 // 2]


def _siblings(
    composites: Composites,
    first: torch.Tensor,
    subjects: dict[str, int],
    generator: torch.Generator,
) -> torch.Tensor:
    groups: dict[str, list[int]] = {}
    for index, picture in enumerate(composites.pictures):
        groups.setdefault(picture.subject, []).append(index)
    chosen = []
    for number in first.tolist():
        group = groups[composites.describe(number)[0]]
        pick = torch.randint(len(group), (1,), generator=generator, device=first.device).item()
        one_hot = torch.zeros(len(composites.pictures), device=first.device)
        one_hot[group[int(pick)]] = 1
        chosen.append(composites.draw(1, one_hot, generator))
    return torch.cat(chosen)


def _tokens(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    return tokenizer(
        captions,
        padding="max_length",
        truncation=True,
        max_length=CONTEXT_LENGTH,
        return_tensors="pt",
    ).input_ids


def save_scorer(modules: nn.ModuleDict, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write the folder that open_clip loads as ``local-dir:`` (fp16), the style head beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": model_config(len(tokenizer)), "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    state = {name: value.half().contiguous() for name, value in modules["clip"].state_dict().items()
             if name != "attn_mask"}  # fmt: skip
    save_file(state, folder / "open_clip_model.safetensors")
    head = {name: value.contiguous() for name, value in modules["style_head"].state_dict().items()}
    save_file(head, folder / "style_head.safetensors", metadata={"styles": ",".join(STYLES)})
    save_tokenizer(tokenizer, folder)
