"""The whole recipe on a handful of pictures: what comes out loads where it is used."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file
from typer.testing import CliRunner

from diffusion.emoji import pretrain
from diffusion.emoji.catalogue import STYLES
from diffusion.emoji.composites import Composites, caption
from diffusion.emoji.pretrain import PHASES, Recipe, app, run_phases, smallest
from diffusion.emoji.scorer_training import augment, true_of
from diffusion.emoji.text import build_tokenizer, caption_corpus
from diffusion.emoji.unet_training import Captions
from diffusion.ledger import Ledger
from diffusion.pipelines import load_policy
from diffusion.randomness import generator
from diffusion.rollout import rollout
from rewards.scorer import load_scorer
from rewards.style import load_head

runner = CliRunner()


@pytest.fixture(scope="module")
def work(composites: Composites, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of every phase at two steps of four."""
    folder = tmp_path_factory.mktemp("recipe") / "work"
    run_phases(smallest(Recipe()), composites, folder, list(PHASES))
    return folder


def test_every_phase_finishes_and_is_logged(work: Path) -> None:
    recipe = json.loads((work / "recipe.json").read_text())
    assert recipe["vae"]["steps"] == recipe["unet"]["steps"] == 2
    for phase in PHASES:
        assert (work / phase / "finished").exists()
        last = (work / phase / "log.jsonl").read_text().splitlines()[-1]
        record = json.loads(last)
        assert record["step"] == 2
        assert all(torch.tensor(value).isfinite() for value in record.values())


def test_the_model_is_a_stable_diffusion_folder(work: Path) -> None:
    policy = load_policy(str(work / "unet" / "out"), seed=0, ledger=Ledger(), sampling_steps=2)
    assert policy.latent_shape == (8, 8, 8)
    assert policy.schedule.timesteps.tolist() == [501, 1]
    trajectories = rollout(policy, [caption("fox", "fluent", "blue")], [generator(0)])
    assert trajectories.log_densities.isfinite().all()
    with torch.no_grad():
        images = policy.decode(trajectories.final)
    assert images.shape == (1, 3, 64, 64)
    scale = AutoencoderKL.from_pretrained(work / "vae_animals" / "out").config.scaling_factor
    assert policy.vae.config.scaling_factor == scale
    assert scale != AutoencoderKL().config.scaling_factor


def test_the_exported_weights_are_the_trained_averages_in_half_precision(work: Path) -> None:
    state = torch.load(work / "unet" / "checkpoint.pt", weights_only=True)["ema"]
    stored = load_file(work / "unet" / "out" / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(value, state[f"unet.{name}"].half()) for name, value in stored.items())
    folder = work / "unet" / "out"
    assert not list(folder.rglob("*.bin")) and not list(folder.rglob("*.pt"))


def test_latents_have_unit_scale(work: Path, composites: Composites) -> None:
    vae = AutoencoderKL.from_pretrained(work / "vae_animals" / "out")
    latents = torch.load(work / "latents.pt", weights_only=True)
    assert latents.shape == (len(composites), 2, 8, 8, 8)
    scaled = latents[:, 0].float() * vae.config.scaling_factor
    assert scaled.std().item() == pytest.approx(1, abs=0.1)
    assert (latents[:, 1] > 0).all()


def test_the_scorer_is_an_open_clip_folder(work: Path, composites: Composites) -> None:
    folder = work / "scorer" / "out"
    scorer = load_scorer(folder, torch.device("cpu"))
    state = torch.load(work / "scorer" / "checkpoint.pt", weights_only=True)["ema"]
    for name, value in scorer.model.state_dict().items():
        if name != "attn_mask":
            torch.testing.assert_close(value, state[f"clip.{name}"], rtol=1e-3, atol=1e-6)
    head = load_head(folder, torch.device("cpu"))
    assert head.styles == tuple(STYLES)
    torch.testing.assert_close(head.weight, 10 * state["style_head.weight"])


def test_a_finished_phase_is_not_run_again(
    work: Path, composites: Composites, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()}
    run_phases(smallest(Recipe()), composites, work, list(PHASES))
    assert capsys.readouterr().out.count("already finished") == len(PHASES)
    after = {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()}
    before.pop(work / "recipe.json"), after.pop(work / "recipe.json")
    assert before == after


def test_a_killed_phase_goes_on_and_ends_alike(
    composites: Composites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process, so to say: networks are built anew, and the global seed is another."""
    recipe = smallest(Recipe(), steps=3)
    run_phases(recipe, composites, tmp_path / "straight", ["scorer"])

    class Killed(BaseException):
        pass

    calls = []
    render = composites.render

    def render_or_die(numbers: torch.Tensor) -> torch.Tensor:
        calls.append(len(numbers))
        if len(calls) == 3:
            raise Killed
        return render(numbers)

    monkeypatch.setattr(composites, "render", render_or_die)
    with pytest.raises(Killed):
        run_phases(recipe, composites, tmp_path / "killed", ["scorer"])
    assert not (tmp_path / "killed" / "scorer" / "finished").exists()
    run_phases(recipe, composites, tmp_path / "killed", ["scorer"])
    assert len(calls) == 4  # two steps, the kill, the third step
    for name in ("open_clip_model.safetensors", "style_head.safetensors", "tokenizer.json"):
        straight, killed = (tmp_path / x / "scorer" / "out" / name for x in ("straight", "killed"))
        assert straight.read_bytes() == killed.read_bytes()


def test_a_caption_is_true_of_every_image_with_what_it_mentions() -> None:
    facts = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]])
    mentions = torch.tensor([[True, True], [False, False], [True, False], [False, True]])
    # Columns: "fox, noto, on white"; "fox"; "fox, twemoji"; "owl, on white".
    assert true_of(facts, mentions).int().tolist() == [
        [1, 1, 0, 0],
        [0, 1, 0, 0],
        [0, 1, 1, 0],
        [0, 0, 0, 1],
    ]


def test_augmentation_keeps_the_range_and_draws_from_its_generator() -> None:
    images = torch.rand(6, 3, 64, 64, generator=generator(0)) * 2 - 1
    state = torch.random.get_rng_state()
    one = augment(images, generator(1))
    assert torch.equal(one, augment(images, generator(1)))
    assert not torch.equal(one, augment(images, generator(2)))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert one.shape == images.shape
    assert one.min() >= -1 and one.max() <= 1


def test_commands_say_what_is_missing(tmp_path: Path) -> None:
    for arguments, word in (
        (["train", str(tmp_path), "--phase", "vea"], "unknown phase"),
        (["train", str(tmp_path), "--phase", "unet"], "goes on from"),
        (["train", str(tmp_path)], "emojibase-data-17.0.0.tgz"),
        (["install", str(tmp_path)], "not finished"),
    ):
        result = runner.invoke(app, arguments)
        assert result.exit_code == 2
        assert word in result.output.splitlines()[-1]


def test_install_copies_model_and_scorer(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrain, "__file__", str(tmp_path / "diffusion/emoji/pretrain.py"))
    result = runner.invoke(app, ["install", str(work)])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "diffusion" / "emoji" / "weights" / "model_index.json").is_file()
    assert (tmp_path / "rewards" / "emoji_scorer" / "open_clip_config.json").is_file()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_every_phase_on_a_gpu(composites: Composites, tmp_path: Path) -> None:
    run_phases(smallest(Recipe()), composites, tmp_path, list(PHASES), torch.device("cuda"))
    composites.to(torch.device("cpu"))  # other tests have them too
    policy = load_policy(str(tmp_path / "unet" / "out"), seed=0, ledger=Ledger())
    assert policy.latent_shape == (8, 8, 8)


def test_a_caption_names_what_its_picture_shows(work: Path, composites: Composites) -> None:
    """Every caption drawn is one of its composite's own; shares are those that are stated."""
    tokenizer = build_tokenizer(caption_corpus(composites.pictures))
    captions = Captions(composites, tokenizer, torch.device("cpu"))
    numbers = torch.arange(len(composites)).repeat(40)
    texts = tokenizer.batch_decode(captions.draw(numbers, generator(0)), skip_special_tokens=True)
    seen: Counter[str] = Counter()
    for number, text in zip(numbers.tolist(), texts, strict=True):
        subject, style, background = composites.describe(number)
        kinds = {
            "empty": "",
            "bare": subject,
            "subject": caption(subject),
            "style": caption(subject, style),
            "background": caption(subject, background=background),
            "both": caption(subject, style, background),
        }
        spaceless = {kind: "".join(words.split()) for kind, words in kinds.items()}
        (kind,) = [k for k, words in spaceless.items() if words == "".join(text.split())]
        seen[kind] += 1
    shares = {kind: count / len(numbers) for kind, count in seen.items()}
    captioned = 0.9 * 0.9
    expected = {"empty": 0.1, "bare": 0.09, "both": captioned / 2}
    expected |= dict.fromkeys(("subject", "style", "background"), captioned / 6)
    assert shares == pytest.approx(expected, abs=0.02)
