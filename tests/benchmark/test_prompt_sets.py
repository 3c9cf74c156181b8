"""Prompt sets: what they hold, how they are split, and what is said about those not at hand."""

from __future__ import annotations

import csv
import dataclasses
import json
import random
import re
from importlib.resources import files
from pathlib import Path

import pytest

from benchmark import cli, prompt_sets, suite
from benchmark.errors import UsageError
from benchmark.prompt_sets import splits
from benchmark.prompt_sets.catalogue import BY_PATH, SETS, SHIPPED
from benchmark.prompt_sets.files import read_lines
from diffusion.emoji.catalogue import COMMON_ANIMALS

DATA = (".txt", ".tsv", ".jsonl")
DRAWBENCH = SETS["drawbench"]
HPD = SETS["hpdv2"]


def write_drawbench(path: Path) -> dict[str, list[str]]:
    """A file of DrawBench's shape with prompts of this test's own, category by category."""
    prompts = {
        name: [f'{name} no. {index}, "quoted"' for index in range(count)]
        for name, count in DRAWBENCH.subsets.items()
    }
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["Prompts", "Category"])
        for name, texts in prompts.items():
            writer.writerows([text, f"{name} "] for text in texts)
    return prompts


def write_hpd(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four lists of 800 in place of the published ones: photo repeats prompts, and shares one with
    paintings."""
    folder.mkdir()
    monkeypatch.setitem(SETS, "hpdv2", dataclasses.replace(HPD, sha256=""))
    for style in HPD.subsets:
        prompts = [f"{style} {index}" for index in range(800)]
        if style == "photo":
            prompts[-20:] = prompts[:19] + ["paintings 5"]
        name = f"benchmark_{style}.json" if style == "anime" else f"{style}.json"
        (folder / name).write_text(json.dumps(prompts), encoding="utf-8")


@pytest.mark.parametrize("which", SHIPPED, ids=lambda which: which.name)
def test_shipped_sets_hold_what_they_state(which) -> None:
    prompts = prompt_sets.read(which.name)
    assert len(prompts) == len(set(prompts)) == which.count
    if not which.file:
        assert list(prompts) == read_lines(prompt_sets.FOLDER / f"{which.name}.txt")
    prompt_sets._check(which, prompt_sets._lines(which, None), Path(which.name))


def test_every_file_is_a_set() -> None:
    found = [path for path in prompt_sets.FOLDER.iterdir() if path.suffix in DATA]
    assert sorted(path.stem for path in found) == prompt_sets.names()


def test_subsets_of_shipped_sets() -> None:
    assert len(prompt_sets.read("partiprompts/Animals")) == 314
    counting = prompt_sets.read("geneval/counting")
    assert len(counting) == 80
    assert all(re.fullmatch(r"a photo of (two|three|four) .+", prompt) for prompt in counting)
    sides = [prompt_sets.read(f"partiprompts:{split}") for split in splits.SHARES]
    assert sum(map(len, sides)) == 1632 and min(map(len, sides)) > 100


def test_what_is_shipped_is_attributed() -> None:
    text = (prompt_sets.FOLDER / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for which in SHIPPED:
        if which.file:
            assert which.file in text and which.source.split("; ")[1] in text


def test_animals_and_their_activities() -> None:
    animals = prompt_sets.read("simple-animals")
    assert list(animals) == COMMON_ANIMALS
    found = [re.fullmatch(r"(an?) (\w+) (.+ing .+)", p) for p in prompt_sets.read("activities")]
    read = [match.groups() for match in found if match]
    assert len(read) == 135
    assert all((article == "an") == (animal[0] in "aeiou") for article, animal, _ in read)
    assert {animal for _, animal, _ in read} == set(animals)
    assert {what for _, _, what in read} == {
        "washing the dishes",
        "riding a bike",
        "playing chess",
    }


def test_imagenet_animals_are_the_first_classes_of_imagenet() -> None:
    folder = files("timm.data") / "_info"
    synsets = (folder / "imagenet_synsets.txt").read_text(encoding="utf-8").split()
    table = (folder / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    lemmas = dict(line.split("\t") for line in table)
    assert prompt_sets.read("imagenet-animals") == tuple(lemmas[name] for name in synsets[:398])


@pytest.mark.parametrize("name", ["simple-animals", "imagenet-animals", "activities"])
def test_splits_are_a_partition_that_nothing_moves(name: str) -> None:
    which = SETS[name]
    parts = {split: prompt_sets.read(f"{name}:{split}") for split in splits.SHARES}
    assert sorted(sum(parts.values(), ())) == sorted(prompt_sets.read(name))
    assert len(parts["train"]) > len(parts["held-out"]) > 0
    lines = prompt_sets._lines(which, None)
    random.Random(0).shuffle(lines)
    assert set(splits.choose(which, lines[:30], "", "train")) <= set(parts["train"])


def test_sides_are_fixed_and_no_subject_is_on_two() -> None:
    # Written down once: another version of the rule would move prompts between the sides.
    sides = [splits.side(prompt) for prompt in prompt_sets.read("simple-animals")]
    assert {name: sides.count(name) for name in splits.SHARES} == {
        "train": 35,
        "validation": 2,
        "held-out": 8,
    }
    assert splits.side("a cat, oil painting") == splits.side("The  CAT") == splits.side("cat")


def test_a_suite_of_splits_overlaps_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(
        "name: split\nprompts: {train: 'imagenet-animals:train', test: 'imagenet-animals:held-out',"
        " validation: 'imagenet-animals:validation'}\nrewards: [colourfulness]\nmethods: [ddpo]\n"
    )
    prompts = suite.check(*suite.read(str(path))).prompts
    assert len(prompts.train) + len(prompts.validation) + len(prompts.test) == 398


def test_drawbench_by_path(tmp_path: Path) -> None:
    path = tmp_path / "bench.csv"
    written = write_drawbench(path)
    assert prompt_sets.read(f"drawbench={path}") == tuple(sum(written.values(), []))
    assert prompt_sets.read(f"drawbench/Gary Marcus et al.={path}") == tuple(
        written["Gary Marcus et al."]
    )
    train = prompt_sets.read(f"drawbench:released-train={path}")
    held_out = prompt_sets.read(f"drawbench:released-held-out={path}")
    assert (len(train), len(held_out)) == (165, 18)
    assert not [p for p in train + held_out if p.startswith(("Misspellings", "Rare Words"))]
    assert held_out[:2] == tuple(written["Colors"][:2])


def test_two_styles_are_mixed_half_and_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "hpd"
    write_hpd(folder, monkeypatch)
    mixed = prompt_sets.read(f"hpdv2/photo+paintings:released-train={folder}")
    photos = [prompt for prompt in mixed if prompt.startswith("photo")]
    assert len(mixed) == len(set(mixed)) == 2 * len(photos) == 2 * 770
    held_out = prompt_sets.read(f"hpdv2/photo+paintings:released-held-out={folder}")
    assert len(held_out) == 20
    assert not prompt_sets.shared(mixed, held_out)
    assert prompt_sets.read(f"hpdv2/photo+paintings:released-train={folder}") == mixed
    four = prompt_sets.read(f"hpdv2={folder}")
    assert len(four) == len(set(four)) == 3200 - 20
    sides = [prompt_sets.read(f"hpdv2:{split}={folder}") for split in splits.SHARES]
    assert sorted(sum(sides, ())) == sorted(four)


def test_other_lists_than_hpd_s_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_hpd(tmp_path / "hpd", monkeypatch)
    monkeypatch.setitem(SETS, "hpdv2", HPD)
    with pytest.raises(ValueError, match=r"holds other prompts than hpdv2: their SHA-256 differs"):
        prompt_sets.read(f"hpdv2={tmp_path / 'hpd'}")


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "json", "txt", "parquet"])
def test_every_format(tmp_path: Path, suffix: str) -> None:
    prompts = [f"photo no. {index}" for index in range(500)]
    prompts[3] = 'a sign that says "stop", at night'
    path = tmp_path / f"captions.{suffix}"
    rows = [{"caption": prompt, "other": 1} for prompt in prompts]
    if suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif suffix == "json":
        path.write_text(json.dumps(prompts), encoding="utf-8")
    elif suffix == "txt":
        path.write_text("\n".join(prompts), encoding="utf-8")
    elif suffix == "parquet":
        pytest.importorskip("pyarrow")
        import pandas

        pandas.DataFrame(rows).to_parquet(path)
    elif suffix == "tsv":
        path.write_text("caption\tother\n" + "".join(f"{p}\t1\n" for p in prompts), "utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, ["caption", "other"])
            writer.writeheader()
            writer.writerows(rows)
    assert prompt_sets.read(f"pickapic={path}") == tuple(prompts)


def test_a_file_of_ones_own_is_split_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("# mine\n" + "\n".join(COMMON_ANIMALS), encoding="utf-8")
    assert prompt_sets.read(str(path)) == tuple(COMMON_ANIMALS)
    assert prompt_sets.read(f"text:train={path}") == prompt_sets.read("simple-animals:train")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("drawbench:train", r"'drawbench' is not part of the program and not at prompts/drawbench"),
        ("drawbnch", r"unknown prompt set 'drawbnch'; did you mean 'drawbench'"),
        ("simple-animals:trian", r"no split 'trian'; did you mean 'train'"),
        ("simple-animals/red", r"no subset 'red'; it has none"),
        ("simple-animals=x.txt", r"comes with the program and takes no path"),
        ("simple-animals:released-train", r"no split 'released-train'"),
        ("drawbench/Colours=BENCH", r"no subset 'Colours'; did you mean 'Colors'"),
        ("drawbench/Colors+=BENCH", r"no subset ''"),
        ("pickapic=BENCH", r"row 1 has no text 'caption'"),
        ("partiprompts=x.tsv", r"comes with the program and takes no path"),
        ("partiprompts/Animal", r"no subset 'Animal'; did you mean 'Animals'"),
        ("pickapic=SHORT", r"SHORT\.txt holds 2 prompts of pickapic, and 500 are expected"),
        ("hpdv2=FOLDER", r"lacks anime\.json"),
        ("pickapic=BROKEN", r"BROKEN\.jsonl is no JSON"),
        ("pickapic=FOLDER", r"cannot be read"),
        ("pickapic=BROKEN.parquet", r"BROKEN\.parquet cannot be read"),
    ],
)
def test_what_is_refused_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_drawbench(tmp_path / "BENCH.csv")
    (tmp_path / "FOLDER").mkdir()
    (tmp_path / "SHORT.txt").write_text("a\nb\n")
    (tmp_path / "BROKEN.jsonl").write_text("{\n")
    (tmp_path / "BROKEN.parquet").write_text("{\n")
    for short, full in (("BENCH", "BENCH.csv"), ("SHORT", "SHORT.txt")):
        name = name.replace(short, full)
    name = name if name.endswith(".parquet") else name.replace("BROKEN", "BROKEN.jsonl")
    (tmp_path / "suite.yaml").write_text(
        json.dumps(
            {
                "name": "x",
                "prompts": {"train": name, "test": ["a dog"]},
                "rewards": ["colourfulness"],
                "methods": ["ddpo"],
            }
        )
    )
    with pytest.raises(UsageError, match=message) as error:
        suite.check(*suite.read("suite.yaml"))
    assert "\n" not in str(error.value)


def test_the_list_names_all_sets(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["list", "prompts"])
    assert exit_.value.code == 0
    output = capsys.readouterr().out
    assert all(name in output for name in SETS)


def test_the_page_of_prompts_names_all_sets() -> None:
    page = (Path(__file__).parents[2] / "docs" / "prompts.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| ([\d,]+|any) \|", page, re.MULTILINE)
    stated = {name: 0 if count == "any" else int(count.replace(",", "")) for name, count in rows}
    assert stated == {which.name: which.count for which in (*SHIPPED, *BY_PATH)}
