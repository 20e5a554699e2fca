"""What another model makes of generated texts: how likely a language model finds them, or a class that a classifier gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from unremember.data.split import Role
from unremember.errors import ModelError
from unremember.models.load import check_weights, files_of, first_line, load_model
from unremember.observe.scoring import score
from unremember.tasks.text import Template, encode_texts


def judge(
    name: str, label: str, prompts: Sequence[str], texts: Sequence[str], quiet: bool = False
) -> np.ndarray:
    """float64[n]: with a ``label``, its probability for each text under the classifier ``name``; without, the probability
    per token of each text behind its prompt under the language model ``name``.

    A classifier is shown the text alone, a language model gives no number to an empty one (NaN). ``name`` is a folder or a
    hub name. Raises ModelError where it cannot be loaded, has no such label, or has too short a context.
    """
    return classified(name, label, texts) if label else likely(name, prompts, texts, quiet)


def likely(name: str, prompts: Sequence[str], texts: Sequence[str], quiet: bool) -> np.ndarray:
    model, tokenizer = load_model(name)(name)
    there = [i for i, text in enumerate(texts) if text]
    found = np.full(len(texts), np.nan)
    if there:
        said = Role("said", [{"prompt": prompts[i], "answer": texts[i]} for i in there])
        columns = {
            "answer": encode_texts(
                said, "answer", tokenizer, Template(), getattr(model.config, "max_position_embeddings", None)
            )
        }
        found[there] = np.exp(-score(model, columns, tokenizer.eos_token_id, quiet)["answer"].scores.loss)
    return found


def classified(name: str, label: str, texts: Sequence[str]) -> np.ndarray:
    from transformers import pipeline

    check_weights(name, files_of(name))
    try:
        classifier: Any = pipeline(
            "text-classification",
            model=name,
            top_k=None,
            truncation=True,
            batch_size=32,
            model_kwargs={"use_safetensors": True},
        )
    except Exception as error:
        raise ModelError(f"cannot load a classifier from {name}: {first_line(error)}") from error
    labels = list(classifier.model.config.id2label.values())
    if label not in labels:
        raise ModelError(f"the classifier {name} has no label {label!r}; it has {', '.join(labels)}")
    return np.array(
        [next(one["score"] for one in found if one["label"] == label) for found in classifier(list(texts))]
    )
