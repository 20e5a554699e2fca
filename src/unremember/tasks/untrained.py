"""A language model that has learned nothing: where training from scratch starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unremember.data.split import Split, make_split
from unremember.errors import ConfigError
from unremember.models.presets import small_llama
from unremember.tasks.artefact import Artefact
from unremember.tasks.language import LanguageTask
from unremember.tasks.tokenizers import train_tokenizer

_COLUMNS = ("prompt", "question", "answer", "text")
_VOCABULARY = 4096


def untrained_model(
    split: Split | Mapping[str, Any],
    *,
    seed: int = 0,
    template: str | Mapping[str, Any] | None = None,
    **sizes: int,
) -> Artefact:
    """Return a small Llama with fresh weights and a tokenizer of the split's texts.

    Args:
        split: The data to be learned: a split, or rows by role.
        seed: The seed of the weights.
        template: The prompt template; None for the default one.
        sizes: ``hidden``, ``layers``, ``heads`` and ``context`` of
            ``unremember.models.presets.small_llama``.

    Raises:
        ConfigError: The split has no texts.
    """
    tokenizer = tokenizer_of_split(make_split(split))
    model = small_llama(len(tokenizer), seed=seed, **sizes)
    return Artefact(model, LanguageTask.of(model, tokenizer, template))


def tokenizer_of_split(split: Split) -> Any:
    """Train a tokenizer of at most 4,096 ids on the prompts, questions, answers and documents of every role.

    Raises:
        ConfigError: The split has no texts.
    """
    rows = [row for role in split.roles.values() for row in role.rows]
    texts = [str(row[column]) for row in rows for column in _COLUMNS if row.get(column)]
    if not texts:
        raise ConfigError(
            f"{split.name} has no texts, and only language models are trained from scratch: "
            "start from a model (--model FOLDER, or un.load)"
        )
    return train_tokenizer(texts, _VOCABULARY)
