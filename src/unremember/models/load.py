"""Load and save models: safetensors only, from local folders and hub names, written whole or not at all."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unremember.errors import ModelError, RunError

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
REMOTE_CODE = "UNREMEMBER_REMOTE_CODE"
"""The environment variable by which a user, and no file, lets a model folder run its own code: 1."""


def resolve_model_folder(folder: str | Path) -> Path:
    """Return the ``model/`` of a run folder, or else the folder itself."""
    inner = Path(folder) / "model"
    return inner if inner.is_dir() else Path(folder)


def load_model(path: str | Path, *, dtype: Any = None, kind: str = "AutoModelForCausalLM") -> Any:
    """Load the model in a folder or at a hub name, in evaluation mode.

    Adapters of peft are merged into their base model; GGUF weights are dequantised.

    Args:
        path: A folder or a hub name of a model or of adapters.
        dtype: The type of the weights; None for the stored one.
        kind: The auto class of transformers that builds it.

    Raises:
        ModelError: The folder or hub name does not exist, it needs code of its own, or the weights are
            pickled, corrupt, incomplete, not finite or not those of the configuration.
    """
    import transformers

    files = list_model_files(path)
    gguf = gguf_file(path, files)
    if gguf is None:
        check_weights(path, files)
    check_shards(Path(path))
    silence_libraries()
    if holds_adapters(files):
        return _merged_model(path, dtype, kind)
    # Otherwise only the first process of a job gets weights.
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    options: dict[str, Any] = {"gguf_file": gguf} if gguf else {"use_safetensors": True}
    if dtype is not None:
        options["dtype"] = dtype
    try:
        loaded: Any = getattr(transformers, kind).from_pretrained(
            str(path), output_loading_info=True, trust_remote_code=runs_remote_code(), **options
        )
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise ModelError(needs_remote_code(path)) from error
        raise ModelError(f"cannot load a model from {path}: {error_summary(error)}") from error
    model, info = loaded
    check_complete(path, model, info)
    check_finite(model, f"the model in {path} has")
    if gguf:
        _forget_quantisation(model)
    return model.eval()


def runs_remote_code() -> bool:
    """Return whether the user lets model folders run their own code. Nobody is ever asked."""
    return os.environ.get(REMOTE_CODE) == "1"


def needs_remote_code(path: str | Path) -> str:
    """Return what to do about a model or tokenizer that only code of its own can load."""
    return f"{path} can be loaded only by running code that it brings: read it, then set {REMOTE_CODE}=1"


def check_complete(path: str | Path, model: Any, info: Mapping[str, Any]) -> None:
    """Raise ModelError where the weights are not exactly those that the configuration asks for.

    Args:
        path: The folder or hub name, for the message.
        model: The loaded model.
        info: What ``from_pretrained`` says of the keys it read.
    """
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"{path} lacks {len(missing)} of the model's weights (first: {missing[0]}): "
            "they would be random; save the model again"
        )
    if unknown := sorted(info["unexpected_keys"]):
        count = len(model.state_dict())
        raise ModelError(
            f"{path}: config.json describes a model of {count} tensors, and the weights hold {len(unknown)} "
            f"more (first: {unknown[0]}): they belong to another configuration; save the model again"
        )


def check_finite(model: Any, whose: str) -> None:
    """Raise ModelError for the first weight that is NaN or infinite.

    Args:
        model: Any module.
        whose: How the message begins, such as ``the model has``.
    """
    for name, tensor in model.state_dict().items():
        floating = tensor.is_floating_point() and tensor.element_size() > 1
        if floating and not bool(tensor.isfinite().all()):
            raise ModelError(f"{whose} weights that are not finite (first: {name}): it says nothing")


def _forget_quantisation(model: Any) -> None:
    """Drop the record that the weights were quantised: they are no more, and can be trained and saved."""
    del model.config.quantization_config, model.hf_quantizer, model.quantization_method
    model.is_quantized = False


def gguf_file(path: str | Path, files: Sequence[str] | None) -> str | None:
    """Return the name of the GGUF file that holds a model's weights; None where safetensors do.

    Raises:
        ModelError: There are several, or the package that reads them is missing.
    """
    names = [name for name in files or () if name.endswith(".gguf")]
    if not names or any(name.endswith(".safetensors") for name in files or ()):
        return None
    if len(names) > 1:
        raise ModelError(f"{path} holds {len(names)} GGUF files: keep the one to load ({', '.join(names)})")
    if importlib.util.find_spec("gguf") is None:
        raise ModelError(f"{path} holds a GGUF file: install what reads it (pip install 'unremember[gguf]')")
    return names[0]


def holds_adapters(files: Sequence[str] | None) -> bool:
    """Return whether files are adapters of peft instead of a whole model."""
    return files is not None and "adapter_config.json" in files


def adapted_model(path: str | Path) -> str:
    """Return the folder or hub name of the model that adapters were trained on.

    Raises ModelError where the adapters do not say it.
    """
    from peft import PeftConfig

    try:
        base = PeftConfig.from_pretrained(str(path)).base_model_name_or_path
    except Exception as error:
        raise ModelError(f"cannot read the adapters in {path}: {error_summary(error)}") from error
    if not base:
        raise ModelError(f"{path} does not say what its adapters adapt: set base_model_name_or_path")
    return str(base)


def _merged_model(path: str | Path, dtype: Any, kind: str) -> Any:
    """Load the model below some adapters, and merge these into its weights."""
    from peft import PeftModel

    base = adapted_model(path)
    try:
        model = load_model(base, dtype=dtype, kind=kind)
    except ModelError as error:
        raise ModelError(f"{path} holds adapters of a model that does not load: {error}") from error
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*missing adapter keys")
            merged: Any = PeftModel.from_pretrained(model, str(path)).merge_and_unload()
    except Exception as error:
        raise ModelError(
            f"the adapters in {path} cannot be merged into {base}: {error_summary(error)}"
        ) from error
    check_finite(merged, f"the adapters in {path} give the model")
    return merged.eval()


def list_model_files(path: str | Path) -> list[str] | None:
    """List the files in a folder or at a hub name; None if the hub's local copy can be used.

    The hub is asked once, without the retries of a download.

    Raises:
        ModelError: There is no such folder and no such hub name, or the hub cannot be reached.
    """
    folder, name = Path(path), str(path)
    if folder.is_dir():
        return sorted(file.name for file in folder.iterdir())
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
            f"no model folder {path}, and no model of this name on the hub ({error_summary(error)})"
        ) from error


def check_weights(path: str | Path, files: Sequence[str] | None) -> None:
    """Raise ModelError where the files are known and none of them holds safetensors."""
    if files is None or any(name.endswith(".safetensors") for name in files):
        return
    if pickled := [name for name in files if name.endswith(_PICKLES)]:
        raise ModelError(
            f"{path} holds its weights as a pickle ({pickled[0]}), which can run code when it is loaded: "
            "convert it once on a machine where you trust it, with transformers: "
            "AutoModelForCausalLM.from_pretrained(...).save_pretrained(folder)"
        )
    raise ModelError(f"{path} has no .safetensors weights (its files: {', '.join(files) or 'none'})")


def check_shards(folder: Path) -> None:
    """Raise ModelError where an index of weights names a file outside its folder, or cannot be read."""
    for index in sorted(folder.glob("*.safetensors.index.json")):
        try:
            shards = {Path(name) for name in json.loads(index.read_text("utf-8"))["weight_map"].values()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelError(f"{index} is no index of weights: {error_summary(error)}") from error
        if outside := [str(shard) for shard in shards if shard.is_absolute() or ".." in shard.parts]:
            raise ModelError(
                f"{index} names the weights {min(outside)!r}, outside its folder: "
                "copy them beside it, and name them without a path"
            )


def error_summary(error: Exception) -> str:
    """Return the type of an error and the first line of its message, cut at 200 characters."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0][:200]}"


def silence_libraries() -> None:
    """Switch off the progress bars and notices of the libraries below."""
    import logging

    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
    for name in ("torchao", "torch.utils._pytree"):  # transformers imports torchao where it is installed
        logging.getLogger(name).setLevel(logging.ERROR)


def save_model(model: Any, processor: Any, folder: Path, texts: Mapping[str, str] | None = None) -> None:
    """Write a model to ``folder``, which is replaced only once the new model is whole.

    A process that dies leaves the old model or the new one. If it dies between the two renames, the old model
    is at ``<folder>.old``, and the next save first puts it back.

    Args:
        model: Anything with ``save_pretrained``.
        processor: What prepares the model's inputs (a tokenizer), saved beside it; None for nothing.
        folder: The model folder.
        texts: Further small files of the folder: text by file name.

    Raises:
        ModelError: A weight is not finite; the old model stays.
        RunError: The folder cannot be written; the old model stays.
    """
    check_finite(model, "the model has")
    silence_libraries()
    try:
        _write_model(model, processor, folder, texts or {})
    except Exception as error:
        if not (isinstance(error, OSError) or "SafetensorError" in type(error).__name__):
            raise
        free = ""
        if folder.parent.is_dir():
            free = f"; {shutil.disk_usage(folder.parent).free / 1e6:.0f} MB free"
        raise RunError(
            f"cannot save the model to {folder} ({error_summary(error)}{free}): "
            "make room and run the same command again"
        ) from error


def _write_model(model: Any, processor: Any, folder: Path, texts: Mapping[str, str]) -> None:
    partial, old = (folder.with_name(f"{folder.name}.{end}") for end in ("partial", "old"))
    # 1. Put back what a save left that died between the renames, and clear the rest of it.
    if old.exists() and not folder.exists():
        os.replace(old, folder)
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        # 2. Write the new model beside the old one.
        model.save_pretrained(partial, safe_serialization=True)
        if processor is not None:
            processor.save_pretrained(partial)
        for name, text in texts.items():
            (partial / name).write_text(text, encoding="utf-8")
        # 3. Swap them.
        if folder.exists():
            os.replace(folder, old)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
