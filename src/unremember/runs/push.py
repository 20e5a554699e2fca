"""Push a forgotten model with its card to the hub."""

from __future__ import annotations

from pathlib import Path

from unremember.errors import ModelError
from unremember.models.load import error_summary
from unremember.report.model_card import UNMEASURED_NOTE
from unremember.runs.folder import model_folder, notice


def run_push(folder: str, name: str, private: bool = False) -> str:
    """Upload the model folder of a run as ``name`` and return the address of the commit.

    Raises:
        ModelError: There is no model with a card, its files are not those that the run wrote, or the hub
            refuses.
    """
    from huggingface_hub import HfApi

    model = Path(model_folder(folder))
    card = model / "README.md"
    if not card.exists():
        raise ModelError(f"{folder} has no forgotten model with a card: `unremember forget` makes one")
    if UNMEASURED_NOTE in card.read_text(encoding="utf-8"):
        notice("nothing was measured on this model, and its card says so: `unremember audit` measures it")
    hub = HfApi()
    try:
        hub.create_repo(name, private=private, exist_ok=True)
        return str(hub.upload_folder(repo_id=name, folder_path=str(model)).commit_url)
    except Exception as error:
        raise ModelError(
            f"cannot push to {name} ({error_summary(error)}): is the name owner/name, and are you logged in "
            "(`hf auth login`)?"
        ) from error
