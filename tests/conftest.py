"""What tests of several packages share."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # a process a core: more threads only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests import how_we_know  # noqa: E402: torch counts its threads when it is imported

CONTEXT_LENGTH = 48
START, END = "<|startoftext|>", "<|endoftext|>"


def byte_tokenizer_files(folder: Path) -> None:
    """A CLIP tokenizer without merges: a token for each byte, and the two special ones."""
    from tokenizers.pre_tokenizers import ByteLevel

    characters = sorted(ByteLevel.alphabet())
    tokens = [*characters, *(f"{c}</w>" for c in characters), START, END]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")


def tiny_text_encoder(tokenizer: Any) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=CONTEXT_LENGTH,
            projection_dim=16,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def tiny_unet() -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )


def tiny_vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
    )


def build_tiny_model(folder: Path) -> None:
    """Stable Diffusion with random weights, 0.1 M of them: 64 x 64 pictures of 8 x 8 latents."""
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTokenizer

    byte_tokenizer_files(folder / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", model_max_length=CONTEXT_LENGTH)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline: Any = StableDiffusionPipeline(
            text_encoder=tiny_text_encoder(tokenizer),
            unet=tiny_unet(),
            vae=tiny_vae(),
            tokenizer=tokenizer,
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a real Stable Diffusion pipeline, tiny and untrained."""
    folder = tmp_path_factory.mktemp("tiny-model")
    build_tiny_model(folder)
    return folder


EVIDENCE = pytest.StashKey[how_we_know.Evidence]()
STALE = pytest.StashKey[list[str]]()
SKIPPED = pytest.StashKey[set[str]]()
CALLED = pytest.StashKey[set[str]]()
RAN = pytest.StashKey[set[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--how-we-know",
        metavar="FILE",
        type=Path,
        help="run only the tests that give evidence, and write it to FILE",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[EVIDENCE] = how_we_know.Evidence()
    config.stash[STALE] = []
    config.stash[SKIPPED] = set()
    config.stash[CALLED] = set()
    config.stash[RAN] = set()
    config.pluginmanager.register(Gathered())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``-n`` the tests of a file stay together, since they share what is slow to make."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


def gives_evidence(item: pytest.Item) -> bool:
    return "evidence" in getattr(item, "fixturenames", ())


def function_of(item: pytest.Item) -> str:
    """Node id without parameters."""
    return item.nodeid.partition("[")[0]


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Notes tests that ran, and those skipped, which miss rows without the page being wrong."""
    item.config.stash[CALLED].add(function_of(item))
    if call.excinfo is not None and call.excinfo.errisinstance(pytest.skip.Exception):
        item.config.stash[SKIPPED].add(function_of(item))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--how-we-know"):
        config.hook.pytest_deselected(items=[item for item in items if not gives_evidence(item)])
        items[:] = [item for item in items if gives_evidence(item)]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    config, evidence = session.config, session.config.stash[EVIDENCE]
    path = config.getoption("--how-we-know")
    if hasattr(config, "workeroutput"):  # one of several processes: the first one gathers
        config.workeroutput["rows"] = [asdict(row) for row in evidence.rows.values()]
        config.workeroutput["ran"] = sorted(evidence_that_ran(session))
        return
    if exitstatus or config.option.collectonly:
        return
    if path:
        path.write_text(how_we_know.render(evidence.rows.values()), encoding="utf-8")
    elif not config.option.keyword and not any("::" in argument for argument in config.args):
        ran: set[str] = config.stash[RAN] | evidence_that_ran(session)
        written = how_we_know.read().values()
        config.stash[STALE] = [
            r.name for r in written if r.test in ran and r.name not in evidence.rows
        ]
        if config.stash[STALE]:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def evidence_that_ran(session: pytest.Session) -> set[str]:
    """Test functions that should have given evidence in this process."""
    items: list[pytest.Item] = getattr(session, "items", [])
    asked = {function_of(item) for item in items if gives_evidence(item)}
    skipped: set[str] = session.config.stash[SKIPPED]
    called: set[str] = session.config.stash[CALLED]
    return (asked - skipped) & called


class Gathered:
    """Of the processes that ``-n`` starts, what their tests gave."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        output = getattr(node, "workeroutput", {})
        node.config.stash[RAN].update(output.get("ran", []))
        for row in output.get("rows", []):
            node.config.stash[EVIDENCE].add(how_we_know.Row(**row))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for name in config.stash[STALE]:
        error = how_we_know.OutOfDate(f"no test measures {name!r} any more")
        terminalreporter.write_line(f"ERROR {error}", red=True)


@pytest.fixture
def evidence(request: pytest.FixtureRequest) -> how_we_know.Record:
    """``evidence(name, figure, tolerance, formula)``: the figure is at most the tolerance.

    ``figure`` is a distance from what it should be, ``formula`` what is compared with what. The
    check is a row of ``docs/how-we-know.md``, and has to be there with this tolerance and formula;
    of several figures under one name, as parametrised tests give, the page shows the largest.
    """
    test = function_of(request.node)

    def record(name: str, figure: float, tolerance: float, formula: str) -> None:
        row = how_we_know.Row(name, float(figure), float(tolerance), formula, test)
        worst = request.config.stash[EVIDENCE].add(row)
        if not request.config.getoption("--how-we-know"):
            how_we_know.compare(worst, how_we_know.read())

    return record
