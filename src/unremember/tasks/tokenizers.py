"""Tokenizers: loaded beside a model, or trained on given texts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unremember.errors import ConfigError, ModelError
from unremember.models.load import (
    adapted_model,
    error_summary,
    gguf_file,
    holds_adapters,
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
    """The tokenizer beside a model, in its GGUF file, or else that of the model that its adapters adapt.

    Raises ModelError where there is none.
    """
    from transformers import AutoTokenizer

    files = list_model_files(path)
    gguf, options = gguf_file(path, files), {}
    if files is not None and not TOKENIZERS & set(files):
        if holds_adapters(files):
            return load_tokenizer(adapted_model(path))
        if gguf is None:
            raise ModelError(
                f"{path} has no tokenizer: "
                "put its tokenizer.json and tokenizer_config.json beside the weights"
            )
        options = {"gguf_file": gguf}
    silence_libraries()
    try:
        return AutoTokenizer.from_pretrained(str(path), trust_remote_code=runs_remote_code(), **options)
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise ModelError(needs_remote_code(path)) from error
        raise ModelError(f"cannot load the tokenizer of {path}: {error_summary(error)}") from error


def check_tokenizer(tokenizer: Any, tokens: int, chat: bool = False) -> None:
    """Check that a tokenizer fits a model whose embedding has ``tokens`` rows.

    Raises:
        ModelError: It gives ids that the embedding lacks, or has no end token.
        ConfigError: Prompts are those of a ``chat``, and it has no template for them.
    """
    ids = max(tokenizer.get_vocab().values()) + 1
    if ids > tokens:
        raise ModelError(
            f"the tokenizer has {ids} ids, the model's embedding {tokens}: use the model's own tokenizer, "
            f"or resize the model (model.resize_token_embeddings({ids})) and train the new rows"
        )
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "the tokenizer has no end token, which closes every answer: "
            "set eos_token in its tokenizer_config.json"
        )
    if chat and not tokenizer.chat_template:
        raise ConfigError(
            "the tokenizer has no chat template: give template a format string over {question}, "
            "or put a chat_template.jinja beside the tokenizer"
        )
