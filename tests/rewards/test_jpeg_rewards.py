"""JPEG size and its differentiable stand-in."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.fft import dctn
from scipy.stats import spearmanr
from torch import Tensor

import rewards
from rewards import jpeg_proxy
from rewards.jpeg_codec import jpeg_kilobytes
from tests.how_we_know import Record


def from_levels(levels: np.ndarray) -> Tensor:
    """Levels ``[H, W, 3]`` from 0 to 255 as an image ``[1, 3, H, W]``."""
    return torch.from_numpy(np.ascontiguousarray(levels)).movedim(-1, 0)[None].float() / 255


def correlation(x: Tensor, y: Tensor) -> float:
    return torch.corrcoef(torch.stack([x, y]))[0, 1].item()


# JPEG libraries differ by a few bytes; the values are those of libjpeg-turbo.
@pytest.mark.parametrize(
    ("size", "level", "kilobytes"),
    [
        (64, 128, 0.689),
        (64, 0, 0.691),
        (64, 255, 0.691),
        (512, 128, 4.721),
        (512, 0, 4.723),
        (512, 255, 4.723),
    ],
)
def test_size_of_plain_pictures(size: int, level: int, kilobytes: float, evidence: Record):
    images = from_levels(np.full((size, size, 3), level))
    evidence(
        "JPEG sizes of plain pictures, in kB",
        abs(jpeg_kilobytes(images).item() - kilobytes),
        0.03,
        "quality 95 and 0.689, 0.691 at 64 x 64, 4.721, 4.723 at 512 x 512 (libjpeg-turbo)",
    )


def test_size_of_noise(evidence: Record):
    random = np.random.RandomState(0)
    large, small = (from_levels(random.randint(0, 256, (size, size, 3))) for size in (512, 64))
    for images, kilobytes in ((large, 308.188), (small, 5.433)):
        evidence(
            "JPEG sizes of noise, relative",
            abs(jpeg_kilobytes(images).item() / kilobytes - 1),
            0.01,
            "quality 95 and 308.188 kB at 512 x 512, 5.433 kB at 64 x 64 (libjpeg-turbo)",
        )


def test_size_of_a_ramp(evidence: Record):
    levels = np.floor(np.linspace(0, 255, 512))
    ramp = from_levels(np.tile(levels[None, :, None], (512, 1, 3)))
    evidence(
        "JPEG size of a ramp, relative",
        abs(jpeg_kilobytes(ramp).item() / 15.593 - 1),
        0.01,
        "quality 95 and 15.593 kB for whole levels from 0 to 255 over 512 x 512 (libjpeg-turbo)",
    )


def test_size_is_that_of_pillow_on_the_rounded_picture(varied_images):
    images = varied_images(6, seed=5)
    for image, kilobytes in zip(images, jpeg_kilobytes(images).tolist(), strict=True):
        levels = np.rint(image.numpy().transpose(1, 2, 0) * 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(levels).save(buffer, "JPEG", quality=95)
        assert kilobytes == pytest.approx(len(buffer.getvalue()) / 1000)


def test_levels_are_rounded_and_not_cut():
    # 127.8 and 128.2 in turn: rounding makes a plain picture of them, cutting does not.
    dithered = from_levels(np.indices((64, 64)).sum(0)[..., None].repeat(3, 2) % 2 * 0.4 + 127.8)
    assert jpeg_kilobytes(dithered).item() == pytest.approx(0.689, abs=0.03)


def test_the_two_rewards_are_opposite(varied_images):
    images = varied_images(6)
    small, large = (
        rewards.load(f"jpeg_{name}") for name in ("compressibility", "incompressibility")
    )
    assert torch.equal(small(images, [""] * 6), -large(images, [""] * 6))
    assert (small(images, [""] * 6) < 0).all()


def test_proxy_uses_the_tables_that_pillow_writes():
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG", quality=95)
    written = Image.open(buffer).quantization  # type: ignore[attr-defined]
    for number, table in enumerate((jpeg_proxy.LUMINANCE, jpeg_proxy.CHROMINANCE)):
        assert jpeg_proxy.quantisation_steps(table).flatten().tolist() == list(written[number])


def test_proxy_uses_the_colours_of_jpeg(varied_images):
    image = varied_images(12)[10]
    levels = (image * 255).round()
    expected = np.asarray(
        Image.fromarray(levels.byte().movedim(0, -1).numpy()).convert("YCbCr"), dtype=np.float32
    )
    planes = jpeg_proxy.to_ycbcr(levels[None])[0].movedim(0, -1).numpy()
    np.testing.assert_allclose(planes + [0, 128, 128], expected, atol=1.1)  # Pillow cuts


def test_proxy_uses_the_orthonormal_cosine_transform(evidence: Record):
    block = np.random.RandomState(0).randn(8, 8)
    basis = jpeg_proxy.cosine_basis().numpy()
    evidence(
        "the JPEG proxy's cosine transform is scipy's",
        float(np.abs(basis @ block @ basis.T - dctn(block, norm="ortho")).max()),
        1e-12,
        "C X C^T and scipy.fft.dctn(X, norm='ortho')",
    )


def test_smooth_bits_by_hand():
    """One luma wave: a single AC coefficient in each of the 4 blocks, no chroma, equal DC."""
    wave = jpeg_proxy.cosine_basis()[3].repeat(2) / 255
    images = (0.5 + 100 * wave).expand(1, 3, 16, 16)
    coefficient = 100 * 8**0.5 / jpeg_proxy.quantisation_steps(jpeg_proxy.LUMINANCE)[0, 3]
    bits = 4 * torch.log2(1 + coefficient.double() ** 2)
    assert jpeg_proxy.smooth_bits(images).item() == pytest.approx(bits.item(), rel=1e-6)


def test_smooth_bits_of_a_step_between_blocks():
    """Four luma blocks in reading order with levels 0, 80, 0, 80 above mid grey: three steps."""
    images = torch.full((1, 3, 16, 16), 100 / 255, dtype=torch.float64)
    images[..., 8:] = 180 / 255
    step = 80 * 8 / jpeg_proxy.quantisation_steps(jpeg_proxy.LUMINANCE)[0, 0]
    bits = 3 * torch.log2(1 + step.double() ** 2)
    assert jpeg_proxy.smooth_bits(images).item() == pytest.approx(bits.item(), rel=1e-6)


def test_proxy_follows_the_true_size(varied_images, evidence: Record):
    images = varied_images(150, seed=1)
    truth = rewards.load("jpeg_compressibility")(images, [""] * 150)
    proxy = rewards.load("jpeg_proxy")(images, [""] * 150)
    evidence(
        "the JPEG proxy follows the true size, Pearson",
        1 - correlation(truth, proxy),
        0.03,
        "1 - correlation of jpeg_proxy and jpeg_compressibility, 150 pictures of many kinds",
    )
    evidence(
        "the JPEG proxy follows the true size, Spearman",
        1 - float(spearmanr(truth, proxy).statistic),
        0.03,
        "1 - rank correlation of jpeg_proxy and jpeg_compressibility, the same pictures",
    )
    assert (truth - proxy).abs().mean() < 0.3  # kB, where sizes go from 0.7 to 5.4


def test_proxy_of_plain_pictures_is_its_bound(varied_images):
    proxy = rewards.load("jpeg_proxy")
    plain = varied_images(1)
    assert proxy(plain, [""]).item() == pytest.approx(proxy.range[1], abs=1e-5)
    assert proxy(plain, [""]).item() == pytest.approx(-0.689, abs=0.06)


def test_calibration_recovers_an_affine_map(varied_images):
    images = varied_images(12)
    kilobytes = 0.6 + 2e-4 * jpeg_proxy.smooth_bits(images.double())
    assert jpeg_proxy.calibrate(images, kilobytes) == pytest.approx((0.6, 2e-4), rel=1e-6)


def test_calibration_on_other_pictures_is_near_the_constants(varied_images):
    images = varied_images(150, seed=1)
    intercept, slope = jpeg_proxy.calibrate(images, jpeg_kilobytes(images))
    assert slope == pytest.approx(jpeg_proxy.KB_PER_BIT, rel=0.15)
    assert intercept == pytest.approx(jpeg_proxy.INTERCEPT_KB, abs=0.4)


@pytest.mark.parametrize(("height", "width"), [(50, 61), (16, 17), (8, 8), (100, 33)])
def test_proxy_pads_with_the_edge(height: int, width: int, varied_images):
    images = varied_images(12, size=100)[9:, :, :height, :width]
    rows = torch.arange(-(-height // 16) * 16).clamp(max=height - 1)
    columns = torch.arange(-(-width // 16) * 16).clamp(max=width - 1)
    padded = images[:, :, rows][:, :, :, columns]
    torch.testing.assert_close(jpeg_proxy.smooth_bits(images), jpeg_proxy.smooth_bits(padded))


def test_proxy_follows_the_true_size_where_padding_is_needed(varied_images):
    images = varied_images(90, size=60, seed=2)[:, :, :53]
    proxy = rewards.load("jpeg_proxy")(images, [""] * 90)
    assert correlation(-jpeg_kilobytes(images), proxy) >= 0.97


def test_proxy_gradient_in_double_precision(varied_images):
    images = varied_images(6, size=18)[4:].double().mul(0.8).add(0.1).requires_grad_()
    proxy = rewards.load("jpeg_proxy")
    assert torch.autograd.gradcheck(lambda x: proxy.score(x, [""] * 2), images, fast_mode=True)


def test_following_the_proxy_makes_true_files_smaller(varied_images):
    images = varied_images(12, seed=4)[[4, 10]]
    before = jpeg_kilobytes(images)
    proxy = rewards.load("jpeg_proxy")
    for _ in range(20):
        images = images.detach().requires_grad_()
        proxy.differentiable_score(images, [""] * 2).sum().backward()
        assert images.grad is not None
        images = (images + 0.002 * images.grad.sign()).clamp(0, 1)
    assert (jpeg_kilobytes(images) < 0.97 * before).all()
