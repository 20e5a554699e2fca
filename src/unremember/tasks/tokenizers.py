"""Tokenizers: loaded beside a model, or trained on given texts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unremember.errors import ModelError
from unremember.models.load import (
    error_summary,
    list_model_files,
    needs_remote_code,
    runs_remote_code,
    silence_libraries,
)

TOKENIZERS = {"tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json"}
END, PAD = "<|endoftext|>", "<|pad|>"


def train_tokenizer(texts: Iterable[str], vocab_size: int = 4096) -> Any:
    """Byte-level BPE; ids 0 and 1 are the end-of-text and padding tokens; adds no token by itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END, PAD],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=END, eos_token=END, pad_token=PAD)


def load_tokenizer(path: str | Path) -> Any:
    """The tokenizer beside a model. Raises ModelError where there is none."""
    from transformers import AutoTokenizer

    files = list_model_files(path)
    if files is not None and not TOKENIZERS & set(files):
        raise ModelError(
            f"{path} has no tokenizer: put its tokenizer.json and tokenizer_config.json beside the weights"
        )
    silence_libraries()
    try:
        return AutoTokenizer.from_pretrained(str(path), trust_remote_code=runs_remote_code())
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise ModelError(needs_remote_code(path)) from error
        raise ModelError(f"cannot load the tokenizer of {path}: {error_summary(error)}") from error
