"""``benchmark push``: the trained weights of a cell, with their card, to a model hub.

Only on request, to a repository that is named, with the token that the hub's own login keeps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmark.errors import NothingToReport, UsageError

FOLDERS = ("lora", "unet")


def weights_folder(cell: Path) -> Path:
    """The folder of a cell's weights; raises ``NothingToReport`` where there is none."""
    for name in FOLDERS:
        if (cell / name).is_dir():
            return cell / name
    raise NothingToReport(f"{cell}: no trained weights of a picture model in it (no folder lora)")


def push(cell: Path, repository: str, private: bool) -> str:
    """Upload to ``OWNER/NAME``, which is made if it is not there; the address of the commit.

    Raises ``NothingToReport`` for a cell without weights, and ``UsageError`` for a name that is
    none, without a token, and where the hub cannot be reached or refuses.
    """
    folder = weights_folder(cell)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # Its HTTP library, whose errors come through as they are, is another one in each version.
    http_error: Any = HfHubHTTPError.__bases__[0]
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message=f"{cell.name}, by benchmark push"
        )
    except (http_error, HFValidationError, OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"{repository} cannot be pushed to: {reason}") from error
    return str(commit.commit_url)
