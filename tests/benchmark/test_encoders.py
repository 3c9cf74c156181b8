"""Encoders: one contract, and optional ones on tiny checkpoints in their release's layout."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark import encoders
from benchmark.encoders import clip, dinov2, dreamsim, dreamsim_ensemble, lpips
from benchmark.suite import EvaluationSettings
from results import metrics
from tests.benchmark.conftest import Command, one_line_error

CPU = torch.device("cpu")
OPTIONAL = {
    "clip": "ViT-L/14 (1.71 GB, licence MIT); `python -m benchmark fetch clip` fetches them",
    "dinov2": "(346 MB, licence Apache-2.0); `python -m benchmark fetch dinov2` fetches them",
    "dreamsim": "`curl -L https://github.com/ssundaram21/dreamsim/releases/download/",
    "dreamsim-ensemble": "dreamsim_ensemble_checkpoint.zip -o dreamsim.zip",
    "lpips": "needs the package torchmetrics; `pip install -e '.[lpips]'`",
}


def tiny_clip(folder: Path) -> Any:
    """Both towers in one checkpoint, as released."""
    from transformers import CLIPConfig, CLIPModel

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "projection_dim": 24}
    config = CLIPConfig(
        text_config=sizes | {"vocab_size": 64},
        vision_config=sizes | {"image_size": 28, "patch_size": 14},
        projection_dim=24,
    )
    return save(CLIPModel, config, folder)


def tiny_dinov2(folder: Path) -> Any:
    from transformers import Dinov2Config, Dinov2Model

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Dinov2Config(**sizes, mlp_ratio=2, image_size=56, patch_size=14)
    return save(Dinov2Model, config, folder)


def tiny_dino(folder: Path) -> Any:
    """In timm's layout."""
    import timm
    from safetensors.torch import save_file

    sizes: dict[str, Any] = {"embed_dim": 64, "depth": 2, "num_heads": 1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model("vit_base_patch16_224", num_classes=0, **sizes)
    config = {"architecture": "vit_base_patch16_224", "num_classes": 0, "model_args": sizes}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(network.state_dict(), folder / "model.safetensors")
    return network.eval()


class Tower(torch.nn.Module):
    """Names a network as the release's extractors do."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model


class Perceptual(torch.nn.Module):
    """Names its first extractor as the release does."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.extractor_list = torch.nn.ModuleList([Tower(model)])


def adapted(network: Any, folder: Path) -> Any:
    """The network with random low-rank matrices, which peft keeps in ``folder``."""
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(r=4, lora_alpha=2, target_modules=["qkv"], init_lora_weights=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = get_peft_model(Perceptual(network), settings)
    model.save_pretrained(folder)
    return model.base_model.model.extractor_list[0].model.eval()


def tiny_ensemble(folder: Path) -> list[Any]:
    """The archive as released, at random: adapter, and open_clip's own image towers in the names of
    the release. The towers with the low-rank matrices added, which is what is to be computed."""
    from open_clip.transformer import QuickGELU, VisionTransformer
    from safetensors.torch import save_file

    source = torch.Generator().manual_seed(3)
    matrices: dict[str, torch.Tensor] = {}
    towers = []
    for index, kind in enumerate([None, QuickGELU, torch.nn.GELU]):
        prefix = f"base_model.model.extractor_list.{index}.model."
        pairs = []
        for block in range(2):
            down, up = (torch.randn(size, generator=source) / 9 for size in [(4, 64), (192, 4)])
            name = f"{prefix}blocks.{block}.attn.qkv.lora_"
            matrices |= {f"{name}A.weight": down, f"{name}B.weight": up}
            pairs.append(up @ down / 2)
        if kind is None:
            continue
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(index)
            tower = VisionTransformer(
                224, 16, 64, 2, 1, 4.0, output_dim=24 - index, act_layer=kind
            ).eval()
            torch.nn.init.normal_(tower.ln_pre.bias)
            torch.nn.init.normal_(tower.ln_post.weight)
        state = {released(name): value for name, value in tower.state_dict().items()}
        state["cls_token"], state["pos_embed"] = (
            state["cls_token"][None, None],
            state["pos_embed"][None],
        )
        state["patch_embed.proj.bias"] = torch.zeros(64)
        files = [dreamsim_ensemble.CLIP_FILE, dreamsim_ensemble.OPEN_CLIP_FILE]
        (folder / dreamsim_ensemble.ADAPTER).mkdir(parents=True, exist_ok=True)
        torch.save(
            {"state_dict": {k: v.clone() for k, v in state.items()}}, folder / files[index - 1]
        )
        for block, change in zip(tower.transformer.resblocks, pairs, strict=True):
            block.attn.in_proj_weight.data += change
        towers.append(tower)
    adapter = folder / dreamsim_ensemble.ADAPTER
    save_file(
        {k: v.contiguous() for k, v in matrices.items()}, adapter / "adapter_model.safetensors"
    )
    (adapter / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 2}))
    return towers


def released(name: str) -> str:
    """DINO's name of a tensor of open_clip's image tower."""
    for old, new in {
        "class_embedding": "cls_token",
        "positional_embedding": "pos_embed",
        "conv1.": "patch_embed.proj.",
        "ln_pre.": "pos_drop.",
        "ln_post.": "norm.",
        "transformer.resblocks.": "blocks.",
        "ln_1.": "norm1.",
        "ln_2.": "norm2.",
        "attn.in_proj_": "attn.qkv.",
        "attn.out_proj.": "attn.proj.",
        "mlp.c_fc.": "mlp.fc1.",
        "mlp.c_proj.": "mlp.fc2.",
    }.items():
        name = name.replace(old, new)
    return name


def tiny_lpips(folder: Path) -> tuple[Path, Path, list[torch.Tensor]]:
    """AlexNet's convolutions and a weight a channel, both at random: files, and the weights."""
    from torchvision.models import alexnet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = {f"features.{k}": v for k, v in alexnet().features.state_dict().items()}
        weights = [torch.rand(1, n, 1, 1) for n in (64, 192, 384, 256, 256)]
    torch.save(state, folder / "alexnet.pth")
    named = {f"lin{i}.model.1.weight": weight for i, weight in enumerate(weights)}
    torch.save(named, folder / "alex.pth")
    return folder / "alexnet.pth", folder / "alex.pth", weights


def save(kind: Any, config: Any, folder: Path) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = kind(config).eval()
    network.save_pretrained(folder, safe_serialization=True)
    return network


def pictures() -> torch.Tensor:
    """8-bit pictures, wider than high."""
    levels = torch.randint(0, 256, (3, 3, 40, 64), generator=torch.Generator().manual_seed(1))
    return levels.float() / 255


def processed(kind: Any, images: torch.Tensor, **settings: Any) -> torch.Tensor:
    """By the release's own preprocessing, of pictures as files have them."""
    arrays = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    processor = kind(do_convert_rgb=True, do_rescale=True, do_normalize=True, **settings)
    files = [Image.fromarray(array) for array in arrays]
    return torch.as_tensor(np.stack(processor(files, return_tensors="np")["pixel_values"]))


def test_the_suite_knows_exactly_the_encoders() -> None:
    names = get_args(get_args(EvaluationSettings.model_fields["encoders"].annotation)[0])
    assert sorted(names) == list(encoders.registry())


def test_clip_is_the_checkpoint_s_projected_embedding(tmp_path: Path) -> None:
    from transformers import CLIPImageProcessor

    network, images = tiny_clip(tmp_path), pictures()
    features = clip.load_folder(tmp_path, CPU)(images)
    assert features.shape == (3, 24)
    size = {"shortest_edge": 28}, {"height": 28, "width": 28}
    pixels = processed(CLIPImageProcessor, images, size=size[0], crop_size=size[1])
    with torch.no_grad():
        expected = network.visual_projection(network.vision_model(pixels).pooler_output)
    cosine = torch.nn.functional.cosine_similarity(features, expected)
    assert (cosine > 0.999).all()  # bicubic resampling rounds to 8 bits there


def test_dinov2_is_the_checkpoint_s_class_token(tmp_path: Path) -> None:
    from transformers import BitImageProcessor

    network, images = tiny_dinov2(tmp_path), pictures()
    features = dinov2.load_folder(tmp_path, CPU)(images)
    assert features.shape == (3, 32)
    pixels = processed(
        BitImageProcessor,
        images,
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        image_mean=list(dinov2.MEAN),
        image_std=list(dinov2.STD),
        resample=3,
    )
    with torch.no_grad():
        expected = network(pixel_values=pixels).last_hidden_state[:, 0]
    cosine = torch.nn.functional.cosine_similarity(features, expected)
    assert (cosine > 0.999).all()


def test_dreamsim_is_the_adapted_network_s_last_block(tmp_path: Path) -> None:
    network = tiny_dino(tmp_path / "dino")
    plain = network.forward_features(torch.zeros(1, 3, 224, 224))
    reference = adapted(network, tmp_path / "adapter")
    assert (reference.forward_features(torch.zeros(1, 3, 224, 224)) - plain).abs().max() > 0.01
    features = dreamsim.load_folders(tmp_path / "dino", tmp_path / "adapter", CPU)(pictures())
    assert features.shape == (3, 64) and features.mean(1).abs().max() < 1e-5
    seen: list[torch.Tensor] = []
    reference.blocks[-1].register_forward_hook(lambda *call: seen.append(call[2][:, 0]))
    pixels = torch.nn.functional.interpolate(
        pictures(), size=(224, 224), mode="bicubic", antialias=True
    ).clamp(0, 1)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (dreamsim.MEAN, dreamsim.STD))
    with torch.no_grad():
        reference.forward_features((pixels - mean) / std)
    expected = seen[0] - seen[0].mean(dim=1, keepdim=True)
    torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-4)


def test_the_ensemble_is_dino_and_the_towers_of_open_clip(tmp_path: Path) -> None:
    """Each part against the network it is of: DINO as alone, CLIP by open_clip's own code."""
    tiny_dino(tmp_path / "dino")
    towers = tiny_ensemble(tmp_path / "archive")
    features = dreamsim_ensemble.load_folders(tmp_path / "dino", tmp_path / "archive", CPU)(
        pictures()
    )
    adapter = tmp_path / "archive" / dreamsim_ensemble.ADAPTER
    network = dreamsim.load_dino(tmp_path / "dino", adapter, CPU)
    pixels = torch.nn.functional.interpolate(
        pictures(), size=(224, 224), mode="bicubic", antialias=True
    ).clamp(0, 1)

    def scaled(mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
        return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)

    clip_pixels = scaled(dreamsim_ensemble.CLIP_MEAN, dreamsim_ensemble.CLIP_STD)
    with torch.no_grad():
        parts = [network.forward_features(scaled(dreamsim.MEAN, dreamsim.STD))[:, 0]]
        parts += [tower(clip_pixels) for tower in towers]
    expected = torch.cat(parts, dim=1)
    assert features.shape == (3, 64 + 23 + 22)
    torch.testing.assert_close(
        features, expected - expected.mean(1, keepdim=True), atol=1e-4, rtol=1e-4
    )


def test_another_file_is_no_tower(tmp_path: Path) -> None:
    tiny_dino(tmp_path / "dino")
    tiny_ensemble(tmp_path / "archive")
    file = tmp_path / "archive" / dreamsim_ensemble.CLIP_FILE
    for content in ({"state_dict": {"proj": torch.zeros(2)}}, {}):
        torch.save(content, file)
        with pytest.raises(ValueError, match=f"{file.name} is no image tower"):
            dreamsim_ensemble.load_folders(tmp_path / "dino", tmp_path / "archive", CPU)
    file.write_bytes(b"\x80 no file of torch")
    with pytest.raises(ValueError, match=f"{file.name} is no image tower"):
        dreamsim_ensemble.load_folders(tmp_path / "dino", tmp_path / "archive", CPU)


def test_an_adapter_may_be_a_file_of_torch(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    load = load_dreamsim(tmp_path)
    expected = load()(pictures())
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()
    assert torch.equal(load()(pictures()), expected)


def test_an_adapter_of_another_network_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    adapted(tiny_dino(tmp_path / "dino"), tmp_path / "adapter")
    name = f"{dreamsim.PREFIX}blocks.7.attn.qkv.lora_A.weight"
    save_file({name: torch.zeros(4, 64)}, tmp_path / "adapter" / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="blocks.7.attn.qkv.lora_A.weight adapts nothing"):
        dreamsim.load_folders(tmp_path / "dino", tmp_path / "adapter", CPU)


def test_the_squared_distance_of_lpips_features_is_lpips(tmp_path: Path) -> None:
    """Against the sum over layers as in the paper's equation 1, activation by activation."""
    from torchvision.models import alexnet

    trunk, weights, of_channels = tiny_lpips(tmp_path)
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    features = lpips.load_files(trunk, weights, CPU)(images)
    assert features.shape == (3, 31872)
    layers = alexnet().features
    state = torch.load(trunk, weights_only=True)
    layers.load_state_dict({name[9:]: value for name, value in state.items()})
    shift, scale = torch.tensor(lpips.SHIFT), torch.tensor(lpips.SCALE)
    hidden = ((images * 2 - 1).movedim(1, -1) - shift).div(scale).movedim(-1, 1)
    expected = 0.0
    found = iter(of_channels)
    with torch.no_grad():
        for layer in layers:
            hidden = layer(hidden)
            if isinstance(layer, torch.nn.ReLU):
                unit = hidden / (hidden.square().sum(1, keepdim=True).sqrt() + 1e-10)
                difference = (unit[0] - unit[1]).square() * next(found)[0]
                expected += difference.sum(0).mean().item()
    assert (features[0] - features[1]).square().sum().item() == pytest.approx(expected, rel=1e-4)
    measured = metrics.load("squared_distance").measure(features[None, :2].numpy())
    assert measured.value == pytest.approx(expected, rel=1e-4)


def test_other_files_are_no_lpips(tmp_path: Path) -> None:
    trunk, weights, _ = tiny_lpips(tmp_path)
    with pytest.raises(ValueError, match=r"alexnet.pth does not hold LPIPS's weights"):
        lpips.load_files(trunk, trunk, CPU)
    with pytest.raises(ValueError, match=r"alex.pth holds no AlexNet"):
        lpips.load_files(weights, weights, CPU)


def load_dreamsim(folder: Path) -> Any:
    adapted(tiny_dino(folder / "dino"), folder / "adapter")
    return lambda: dreamsim.load_folders(folder / "dino", folder / "adapter", CPU)


def load_ensemble(folder: Path) -> Any:
    tiny_dino(folder / "dino")
    tiny_ensemble(folder / "archive")
    return lambda: dreamsim_ensemble.load_folders(folder / "dino", folder / "archive", CPU)


def load_lpips(folder: Path) -> Any:
    trunk, weights, _ = tiny_lpips(folder)
    return lambda: lpips.load_files(trunk, weights, CPU)


def load_clip(folder: Path) -> Any:
    tiny_clip(folder)
    return lambda: clip.load_folder(folder, CPU)


def load_dinov2(folder: Path) -> Any:
    tiny_dinov2(folder)
    return lambda: dinov2.load_folder(folder, CPU)


@pytest.mark.parametrize("make", [load_clip, load_dinov2, load_dreamsim, load_ensemble, load_lpips])
def test_loading_draws_nothing_and_encoding_changes_nothing(tmp_path: Path, make: Any) -> None:
    load = make(tmp_path)
    state = torch.get_rng_state()
    encode = load()
    images = pictures()
    first = encode(images)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, pictures()) and not first.requires_grad
    torch.testing.assert_close(encode(images[1:2]), first[1:2], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_missing_one_names_the_command_that_fetches_it(
    benchmark_command: Command,
    tiny_suite: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "empty"))
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda module, *rest: None if module == "torchmetrics" else find(module, *rest),
    )
    change = f"evaluation.encoders=[{name}]"
    done = benchmark_command("run", "--suite", tiny_suite, "--dry-run", "--set", change)
    message = one_line_error(done, 4)
    assert f"encoder {name!r} needs " in message and OPTIONAL[name] in message


def test_the_ensemble_needs_its_archive_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    command = "`curl -L https://github.com/ssundaram21/dreamsim/releases/download/.*ensemble.*zip "
    with pytest.raises(encoders.MissingEncoder, match=command):
        dreamsim_ensemble.archive_folder()
    tiny_ensemble(tmp_path / dreamsim_ensemble.NAME)
    assert dreamsim_ensemble.archive_folder() == tmp_path / dreamsim_ensemble.NAME


def test_lpips_needs_its_trunk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    command = r"`python -c \"import torchvision; torchvision.models.alexnet\(weights='DEFAULT'\)"
    with pytest.raises(encoders.MissingEncoder, match=command):
        lpips.trunk_file()
