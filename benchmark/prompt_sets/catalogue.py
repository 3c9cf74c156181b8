"""The prompt sets: which there are, whose they are, and what those read by path have to hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PromptSet:
    """A named list of prompts, in the program or in a file that the user has."""

    name: str
    version: int
    """To be raised whenever its prompts change."""
    count: int
    """Prompts, repeated ones included; 0 where any number will do."""
    licence: str
    source: str
    sha256: str = ""
    """Of its prompts in order, one a line; empty where only the number is known."""
    file: str = ""
    """Its file or folder; empty for ``NAME.txt``."""
    by_path: bool = False
    """Whether the user brings it, below the folder ``prompts`` or elsewhere."""
    column: str = ""
    """Column, or key, of the prompts in tables and in JSON objects."""
    subset_column: str = ""
    """That of the subsets."""
    subsets: Mapping[str, int] = field(default_factory=dict)
    """Subset to its number of prompts; their order is that of the published list."""
    held_out_first: int = 0
    """Prompts that ``released-held-out`` takes from the beginning of each subset; 0 for no
    released split."""
    left_out: tuple[str, ...] = ()
    """Subsets that the released split leaves out."""

    @property
    def shipped(self) -> bool:
        """Whether it comes with the program."""
        return not self.by_path


_EMOJI = "this project; animals of ddpo-pytorch"

SHIPPED = (
    PromptSet("animals-train", 1, 34, "MIT", _EMOJI),
    PromptSet("animals-validation", 1, 6, "MIT", _EMOJI),
    PromptSet("animals-held-out", 1, 6, "MIT", _EMOJI),
    PromptSet("animals-on-backgrounds-train", 1, 68, "MIT", _EMOJI),
    PromptSet("animals-on-backgrounds-held-out", 1, 12, "MIT", _EMOJI),
    PromptSet(
        "simple-animals",
        1,
        45,
        "MIT",
        "ddpo-pytorch, simple_animals",
        sha256="ee3d9b638ce2a40e896a34319af85709d3c1c3188da0b8feda739dcb7363188d",
    ),
    PromptSet("simple-animals-held-out", 1, 6, "MIT", "AlignProp"),
    PromptSet("activities", 1, 135, "MIT", "ddpo-pytorch, nouns_activities"),
    PromptSet("imagenet-animals", 1, 398, "MIT", "ddpo-pytorch, imagenet_animals"),
    PromptSet(
        "partiprompts",
        1,
        1632,
        "Apache-2.0",
        "PartiPrompts (arXiv 2206.10789); google-research/parti",
        sha256="db0c2ddb1c8b2f7638acf694eb20ba6622d4cd2bddb2a5b66c92beddfbcde284",
        file="partiprompts.tsv",
        column="Prompt",
        subset_column="Category",
        subsets={
            "Abstract": 51,
            "Animals": 314,
            "Artifacts": 287,
            "Arts": 66,
            "Food & Beverage": 74,
            "Illustrations": 124,
            "Indoor Scenes": 40,
            "Outdoor Scenes": 131,
            "People": 177,
            "Produce & Plants": 50,
            "Vehicles": 104,
            "World Knowledge": 214,
        },
    ),
    PromptSet(
        "geneval",
        1,
        553,
        "MIT",
        "GenEval (arXiv 2310.11513), prompts/evaluation_metadata.jsonl; djghosh13/geneval",
        sha256="55b6e3650e980c13daf30569eb666e000faf19bfc2b7b4cbe999fcdb7aa9d680",
        file="geneval.jsonl",
        column="prompt",
        subset_column="tag",
        subsets={
            "single_object": 80,
            "two_object": 99,
            "counting": 80,
            "colors": 94,
            "position": 100,
            "color_attr": 100,
        },
    ),
)

BY_PATH = (
    PromptSet(
        "drawbench",
        1,
        200,
        "unknown",
        "DrawBench (arXiv 2205.11487); shunk031/DrawBench on the hub",
        file="drawbench.csv",
        by_path=True,
        column="Prompts",
        subset_column="Category",
        subsets={
            "Colors": 25,
            "Conflicting": 10,
            "Counting": 19,
            "DALL-E": 20,
            "Descriptions": 20,
            "Gary Marcus et al.": 10,
            "Misspellings": 10,
            "Positional": 20,
            "Rare Words": 7,
            "Reddit": 38,
            "Text": 21,
        },
        held_out_first=2,
        left_out=("Misspellings", "Rare Words"),
    ),
    PromptSet(
        "hpdv2",
        1,
        3200,
        "Apache-2.0",
        "HPD v2 benchmark (arXiv 2306.09341); ymhao/HPDv2 on the hub",
        sha256="73d84095b06d38d16435dd463abe43a8e6555da3876ebfc8ccf11351f3d72a75",
        file="hpdv2",
        by_path=True,
        subsets=dict.fromkeys(["anime", "concept-art", "paintings", "photo"], 800),
        held_out_first=10,
    ),
    PromptSet(
        "pickapic",
        1,
        500,
        "see its card",
        "Pick-a-Pic (arXiv 2305.01569), validation_unique or test_unique; "
        "yuvalkirstain/pickapic_v1 on the hub",
        file="pickapic.csv",
        by_path=True,
        column="caption",
    ),
    PromptSet(
        "imagereward-benchmark",
        1,
        100,
        "Apache-2.0",
        "ImageReward (arXiv 2304.05977), benchmark/benchmark-prompts.json; THUDM/ImageReward",
        sha256="866fc201765f1e3701626e1b4db0752804947b692d9a440a0149fec9ed3e7932",
        file="benchmark-prompts.json",
        by_path=True,
        column="prompt",
    ),
    PromptSet(
        "text", 1, 0, "yours", "a text file, one prompt a line", file="prompts.txt", by_path=True
    ),
)

SETS = {found.name: found for found in (*SHIPPED, *BY_PATH)}
"""All by name."""
