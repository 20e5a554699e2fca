"""Load and save models: safetensors only, local folders and hub names alike, writes that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from unremember.errors import ModelError, RunError

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def load_model(path: str | Path, *, dtype: Any = None) -> Any:
    """The causal language model in a folder or at a hub name, in eval mode.

    Raises ModelError for a missing folder, pickle-only weights, a corrupt file, an unknown hub name.
    """
    from transformers import AutoModelForCausalLM

    check_folder(path)
    quiet()
    try:
        options = {"dtype": dtype} if dtype is not None else {}
        return AutoModelForCausalLM.from_pretrained(str(path), use_safetensors=True, **options).eval()
    except Exception as error:
        raise ModelError(f"cannot load a model from {path}: {first_line(error)}") from error


def load_tokenizer(path: str | Path) -> Any:
    """The tokenizer beside a model. Raises ModelError where there is none."""
    from transformers import AutoTokenizer

    folder = Path(path)
    if folder.is_dir() and not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json")):
        raise ModelError(f"{path} has no tokenizer: put its tokenizer.json and tokenizer_config.json beside the weights")
    try:
        return AutoTokenizer.from_pretrained(str(path))
    except Exception as error:
        raise ModelError(f"cannot load the tokenizer of {path}: {first_line(error)}") from error


def check_folder(path: str | Path) -> None:
    folder = Path(path)
    if not folder.exists():
        if str(path).startswith((".", "/", "~")) or str(path).count("/") > 1:
            raise ModelError(f"no model folder {path}")
        return
    files = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    if not any(name.endswith(".safetensors") for name in files):
        pickled = [name for name in files if name.endswith(PICKLES)]
        if pickled:
            raise ModelError(
                f"{path} holds its weights as a pickle ({pickled[0]}), which can run code when it is loaded: convert it once "
                "where you trust it, with transformers: AutoModelForCausalLM.from_pretrained(...).save_pretrained(folder)"
            )
        raise ModelError(f"{path} has no .safetensors weights (files there: {', '.join(files) or 'none'})")


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0][:200]}"


def quiet() -> None:
    """No progress bars or notices of the libraries below."""
    import warnings

    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write model and tokenizer to ``folder``, which is replaced only once the new one is whole."""
    partial = folder.with_name(f"{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        model.save_pretrained(partial, safe_serialization=True)
        tokenizer.save_pretrained(partial)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    except Exception as error:
        if not (isinstance(error, OSError) or "SafetensorError" in type(error).__name__):
            raise
        free = shutil.disk_usage(folder.parent).free / 1e6
        raise RunError(f"cannot save the model to {folder} ({first_line(error)}; {free:.0f} MB free): make room, run the same command") from error
