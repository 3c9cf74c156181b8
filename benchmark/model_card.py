"""The card of trained weights: a README.md that says what they are and how to load them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from benchmark import models
from results.records import CellConfig

Values = list[list[float]]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def text(
    config: CellConfig, round_: int, rewards: Mapping[str, Values], diversity: Mapping[str, Any]
) -> str:
    """Markdown with the header that model hubs read.

    ``rewards`` and ``diversity`` are those of the picked evaluation on the test prompts. A base
    model that is a folder is told by the folder's name: where it lies is nobody's business.
    """
    base = base_model(config)
    lora = config.model.get("trainable", "lora") == "lora"
    header: dict[str, Any] = {"library_name": "diffusers", "pipeline_tag": "text-to-image"}
    if _HUB_ID.fullmatch(base):
        header["base_model"] = base
    header["tags"] = [*(["lora"] if lora else []), "text-to-image", config.method]
    settings = "\n".join(f"- `{key}`: {value}" for key, value in config.method_config.items())
    sampler = ", ".join(
        f"{key} {config.model[key]}"
        for key in ("sampling_steps", "guidance_scale", "eta", "dtype")
        if key in config.model
    )
    return f"""---
{yaml.safe_dump(header, sort_keys=False).strip()}
---

# {config.method} on {config.reward}, seed {config.seed}

{"LoRA" if lora else "UNet"} of `{base}`, aligned with the reward `{config.reward}` by the
method `{config.method}`.

| | |
|---|---|
| base model | `{base}` |
| method | `{config.method}` |
| reward | `{config.reward}` |
| seed | {config.seed} |
| budget | {config.budget_images:,} training images |
| checkpoint | round {round_}, rule `{config.checkpoint}` |
| sampler | DDIM, {sampler} |
| training prompts | {len(config.train_prompts):,} |
| protocol | `{config.protocol}` |

## Metrics

On {len(config.evaluation_prompts):,} held-out prompts, {config.images_per_prompt} images each:

| metric | mean |
|---|---|
{_rows(rewards, diversity)}

Numbers compare only with those of the same protocol.

## How to load it

```python
{_usage(base, lora, config)}
```

## Settings of the method

{settings or "None."}
"""


def base_model(config: CellConfig) -> str:
    """The name of the model that was trained, without the path of a folder."""
    name = str(config.model.get("name", ""))
    known = name in models.NAMED or name in models.RANDOM or not Path(name).is_dir()
    return name if known else Path(name).resolve().name


def _rows(rewards: Mapping[str, Values], diversity: Mapping[str, Any]) -> str:
    rows = [f"| `{name}` | {_mean(values):.4g} |" for name, values in rewards.items()]
    rows += [
        f"| diversity, pairwise distance in `{name}` | {fmean(values):.4g} |"
        for name, values in diversity.items()
    ]
    return "\n".join(rows)


def _mean(values: Values) -> float:
    return fmean(value for prompt in values for value in prompt)


def _usage(base: str, lora: bool, config: CellConfig) -> str:
    """Code that draws with the weights as they were evaluated."""
    own = base in models.NAMED or base in models.RANDOM
    classes = ["DDIMScheduler"]
    classes += [] if own else ["DiffusionPipeline"]
    classes += [] if lora else ["UNet2DConditionModel"]
    lines = [f"from diffusers import {', '.join(classes)}"]
    if own:
        lines += ["", "from diffusion.pipelines import load_pipeline", ""]
        lines += [f'pipeline = load_pipeline("{base}")']
    else:
        place = base if _HUB_ID.fullmatch(base) else f"PATH OF {base}"
        lines += ["", f'pipeline = DiffusionPipeline.from_pretrained("{place}")']
    load = 'pipeline.load_lora_weights("THIS FOLDER")'
    if not lora:
        load = 'pipeline.unet = UNet2DConditionModel.from_pretrained("THIS FOLDER")'
    eta = config.etas[0] if config.etas else config.model.get("eta", 0.0)
    return "\n".join(
        [
            *lines,
            load,
            "pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)",
            "image = pipeline(",
            f"    {config.evaluation_prompts[0]!r},",
            f"    num_inference_steps={config.model.get('sampling_steps', 50)},",
            f"    guidance_scale={config.model.get('guidance_scale', 5.0)},",
            f"    eta={eta},",
            ").images[0]",
        ]
    )
