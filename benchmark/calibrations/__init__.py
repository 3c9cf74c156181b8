"""Calibrations, one YAML file each; ``benchmark.calibration`` says what is in them."""

from __future__ import annotations

from pathlib import Path

from benchmark.errors import UsageError, did_you_mean

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Names of the calibrations that come with the program."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find(name: str) -> Path:
    """File of a calibration given by name or path; raises ``UsageError`` naming the nearest."""
    if name in names():
        return FOLDER / f"{name}.yaml"
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise UsageError(f"calibrate {name}: no such file")
    hint = did_you_mean(name, names())
    raise UsageError(f"calibrate {name}: unknown calibration; {hint}; or the path of a .yaml file")
