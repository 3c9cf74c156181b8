"""Small changes of pictures: what each does, and that it is small and repeatable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import rewards
from benchmark.augmentations import AUGMENTATIONS, crop, flip, jpeg, noise
from diffusion.ledger import Ledger
from diffusion.pipelines import load_policy
from diffusion.randomness import generator
from diffusion.rollout import sample


def generators(n: int) -> list[torch.Generator]:
    return [generator(0, "test", index) for index in range(n)]


def pictures() -> torch.Tensor:
    """Smooth ones, twice as wide as high."""
    x, y = np.meshgrid(np.linspace(0, 1, 64), np.linspace(0, 1, 32))
    channels = np.stack([x, y, 0.5 + 0.5 * np.sin(6 * x * y)])
    return torch.tensor(np.stack([channels, channels[::-1].copy()]), dtype=torch.float32)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_is_small_repeatable_and_stays_in_range(name: str) -> None:
    images = pictures()
    changed = AUGMENTATIONS[name](images, generators(2))
    assert changed.shape == images.shape and changed.dtype == images.dtype
    assert changed.min() >= 0 and changed.max() <= 1
    assert torch.equal(images, pictures())
    assert torch.equal(AUGMENTATIONS[name](images, generators(2)), changed)
    assert torch.equal(AUGMENTATIONS[name](images[1:], generators(2)[1:]), changed[1:])
    straight = changed.flip(-1) if name == "flip" else changed
    assert (straight - images).abs().mean() < 0.06
    assert not torch.equal(changed, images)


def test_a_flip_and_a_crop() -> None:
    images = pictures()
    assert torch.equal(flip(images, []), torch.flip(images, dims=[3]))
    ramp = images[:, :1]
    expected = torch.linspace(4 / 63, 59 / 63, 64)  # 4 of 64 columns gone at each side
    inner = crop(images, [])[0, 0, 16, 2:-2]
    torch.testing.assert_close(inner, expected[2:-2], atol=2e-3, rtol=0)
    assert crop(ramp, []).shape == ramp.shape


def test_jpeg_is_the_file_read_again(tmp_path: Path) -> None:
    images = pictures()
    levels = (images[0] * 255).round().to(torch.uint8).movedim(0, -1).numpy()
    Image.fromarray(levels).save(tmp_path / "picture.jpg", quality=80)
    expected = np.asarray(Image.open(tmp_path / "picture.jpg")) / 255
    np.testing.assert_allclose(jpeg(images, [])[0].movedim(0, -1), expected, atol=1e-6)


def test_noise_has_its_deviation_and_differs_from_image_to_image() -> None:
    grey = torch.full((2, 3, 64, 64), 0.5)
    residual = noise(grey, generators(2)) - grey
    assert residual.std().item() == pytest.approx(0.05, rel=0.02)
    assert not torch.equal(residual[0], residual[1])


def test_they_undo_what_was_fitted_to_the_pixels() -> None:
    """Eight signed gradient steps within 2 of 255 levels fool the embedded model's scorer; every
    change takes away a part of that on top of what it takes from the pictures as they were."""
    policy = load_policy("emoji", seed=0, ledger=Ledger(), sampling_steps=5, guidance_scale=3.0)
    prompts = [f"a cat, {style} style" for style in ("noto", "twemoji", "fluent")] * 2
    with torch.no_grad():
        images = policy.decode(sample(policy, prompts, generators(6)))
    reward = rewards.load("style")
    fooled = images.clone()
    for _ in range(8):
        fooled.requires_grad_()
        reward.differentiable_score(fooled, prompts).sum().backward()
        assert fooled.grad is not None
        step = fooled.detach() + 0.5 / 255 * fooled.grad.sign()
        fooled = step.clamp(images - 2 / 255, images + 2 / 255).clamp(0, 1)
    gain = (reward(fooled, prompts) - reward(images, prompts)).mean().item()
    assert gain > 0.1
    lost = {}
    for name, augment in AUGMENTATIONS.items():
        plain, gamed = (
            (reward(each, prompts) - reward(augment(each, generators(6)), prompts)).mean().item()
            for each in (images, fooled)
        )
        lost[name] = (gamed - plain) / gain
    assert min(lost.values()) > 0.1 and max(lost.values()) > 0.5, lost
