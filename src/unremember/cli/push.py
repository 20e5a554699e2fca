"""``push``: a model with its card, to the hub."""

from __future__ import annotations

from pathlib import Path

from unremember.cli.folder import model_folder, notice
from unremember.errors import ModelError
from unremember.models.load import first_line
from unremember.report.model_card import UNMEASURED


def push_run(folder: str, name: str, private: bool) -> None:
    """Upload a run's model folder as ``name``. Raises ModelError where there is no model with a card, or the hub refuses."""
    from huggingface_hub import HfApi

    model = Path(model_folder(folder))
    card = model / "README.md"
    if not card.exists():
        raise ModelError(f"{folder} has no forgotten model with a card: `unremember forget` makes one")
    if UNMEASURED in card.read_text(encoding="utf-8"):
        notice("nothing was measured on this model, and its card says so: `unremember audit` first")
    hub = HfApi()
    try:
        hub.create_repo(name, private=private, exist_ok=True)
        print(hub.upload_folder(repo_id=name, folder_path=str(model)).commit_url)
    except Exception as error:
        raise ModelError(
            f"cannot push to {name} ({first_line(error)}): is the name owner/name, and are you logged in (`hf auth login`)?"
        ) from error
