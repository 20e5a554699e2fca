"""Load and save models: safetensors only, local folders and hub names alike, writes that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unremember.errors import ModelError, RunError

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def model_in(folder: str | Path) -> Path:
    """The ``model/`` of a run folder, else the folder itself."""
    inner = Path(folder) / "model"
    return inner if inner.is_dir() else Path(folder)


def load_model(path: str | Path, *, dtype: Any = None, kind: str = "AutoModelForCausalLM") -> Any:
    """Load the model in a folder or at a hub name, in evaluation mode.

    Args:
        path: A model folder or a hub name.
        dtype: The type of the weights; None for the one that is stored.
        kind: The auto class of transformers that builds it.

    Raises:
        ModelError: The folder or hub name does not exist, the weights are a pickle or corrupt, or they do not fill the model.
    """
    import transformers

    check_weights(path, files_of(path))
    quiet()
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = (
        "false"  # else all processes of a job but the first get empty weights
    )
    try:
        options = {"dtype": dtype} if dtype is not None else {}
        loaded: Any = getattr(transformers, kind).from_pretrained(
            str(path), use_safetensors=True, output_loading_info=True, **options
        )
    except Exception as error:
        raise ModelError(f"cannot load a model from {path}: {first_line(error)}") from error
    model, found = loaded
    if missing := sorted(found["missing_keys"]):
        raise ModelError(
            f"{path} lacks {len(missing)} of the model's weights (first: {missing[0]}): they would be random; save the model again"
        )
    return model.eval()


def files_of(path: str | Path) -> list[str] | None:
    """The names of the files in a folder or at a hub name; None where the hub's local copy will do.

    Raises ModelError where there is neither; the hub is asked once, without the retries of a download.
    """
    folder, name = Path(path), str(path)
    if folder.is_dir():
        return sorted(p.name for p in folder.iterdir())
    if folder.exists():
        raise ModelError(f"{path} is a file: give the folder that holds it")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"no model folder {path}")
    from huggingface_hub import HfApi, try_to_load_from_cache

    try:
        if isinstance(try_to_load_from_cache(name, "config.json"), str):
            return None
        return [file.rfilename for file in HfApi().model_info(name, timeout=10).siblings or []]
    except Exception as error:
        raise ModelError(
            f"no model folder {path}, and no such model could be had from the hub ({first_line(error)})"
        ) from error


def check_weights(path: str | Path, files: Sequence[str] | None) -> None:
    """Raise ModelError where the files are known and no safetensors are among them."""
    if files is None or any(name.endswith(".safetensors") for name in files):
        return
    if pickled := [name for name in files if name.endswith(PICKLES)]:
        raise ModelError(
            f"{path} holds its weights as a pickle ({pickled[0]}), which can run code when it is loaded: convert it once "
            "where you trust it, with transformers: AutoModelForCausalLM.from_pretrained(...).save_pretrained(folder)"
        )
    raise ModelError(f"{path} has no .safetensors weights (files there: {', '.join(files) or 'none'})")


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0][:200]}"


def quiet() -> None:
    """No progress bars or notices of the libraries below."""
    import logging as log
    import warnings

    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
    for name in ("torchao", "torch.utils._pytree"):  # transformers imports torchao where it is installed
        log.getLogger(name).setLevel(log.ERROR)


def save_model(model: Any, processor: Any, folder: Path, texts: Mapping[str, str] | None = None) -> None:
    """Write a model to ``folder``, which is replaced only once the new one is whole.

    Args:
        model: Anything with ``save_pretrained``.
        processor: What prepares the model's inputs (a tokenizer), saved beside it; None for nothing.
        folder: The model folder.
        texts: Further small files of the folder: text by file name.

    A process that dies leaves the old model or the new one; at worst, between two renames, the old one stands at
    ``<folder>.old`` and the next save puts it back before it begins.
    """
    partial, old = (folder.with_name(f"{folder.name}.{end}") for end in ("partial", "old"))
    quiet()
    try:
        if old.exists() and not folder.exists():
            os.replace(old, folder)
        for left in (partial, old):
            shutil.rmtree(left, ignore_errors=True)
        model.save_pretrained(partial, safe_serialization=True)
        if processor is not None:
            processor.save_pretrained(partial)
        for name, text in (texts or {}).items():
            (partial / name).write_text(text, encoding="utf-8")
        if folder.exists():
            os.replace(folder, old)
        os.replace(partial, folder)
        shutil.rmtree(old, ignore_errors=True)
    except Exception as error:
        if not (isinstance(error, OSError) or "SafetensorError" in type(error).__name__):
            raise
        free = (
            f"; {shutil.disk_usage(folder.parent).free / 1e6:.0f} MB free" if folder.parent.is_dir() else ""
        )
        raise RunError(
            f"cannot save the model to {folder} ({first_line(error)}{free}): make room, run the same command"
        ) from error
