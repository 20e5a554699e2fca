"""Judge scores: what another model makes of the generations, as a probability of the text or of a class."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np

from unremember.data.split import make_split
from unremember.errors import ModelError
from unremember.models.load import check_weights, error_summary, list_model_files
from unremember.observe.kinds.generations import Generations
from unremember.observe.protocol import Arrays, ObservationContext, RoleRequest
from unremember.observe.scoring import score
from unremember.registry import observations
from unremember.tasks.artefact import load_artefact
from unremember.tasks.text import Template


@observations.register("judge_scores", needs=("text", "another model"))
@dataclasses.dataclass(frozen=True)
class JudgeScores(RoleRequest):
    """What another model makes of each greedy generation to the prompts of a role.

    The value is float64[n], for n rows.

    Args:
        role: The role whose prompts are answered.
        judge: The folder or hub name of a language model, or of a classifier.
        label: The class whose probability a classifier gives; "" for a language model, which gives the
            probability per token of the text behind its prompt.
    """

    judge: str
    label: str = ""
    stored: ClassVar[bool] = False  # a name does not say which weights judged

    def requires(self) -> tuple[Generations]:
        return (Generations(self.role),)

    @classmethod
    def observe(cls, requests: Sequence[Self], context: ObservationContext) -> dict[Self, Arrays]:
        """Judge the generations of one request after another."""
        return {request: {"values": request.judge_generations(context)} for request in requests}

    def judge_generations(self, context: ObservationContext) -> np.ndarray:
        """Return the judge's number for each generation."""
        texts = context[Generations(self.role)]
        if self.label:
            return label_probabilities(self.judge, self.label, texts)
        prompts = [context.task.prompt(row) for row in context.split[self.role].rows]
        return text_probabilities(self.judge, prompts, texts, context.quiet)


def text_probabilities(
    name: str, prompts: Sequence[str], texts: Sequence[str], quiet: bool = False
) -> np.ndarray:
    """Return float64[n]: the probability per token of each text behind its prompt under a language model.

    An empty text gets NaN. Raises ModelError where the model cannot be loaded.
    """
    judge = load_artefact(name, Template().prompt)
    task: Any = judge.task
    values = np.full(len(texts), np.nan)
    spoken = [i for i, text in enumerate(texts) if text]
    if spoken:
        split = make_split({"spoken": [{"prompt": prompts[i], "answer": texts[i]} for i in spoken]})
        columns = task.encode(split, "spoken", ["answer"])
        values[spoken] = np.exp(-score(judge.model, columns, task.end, quiet)["answer"].loss)
    return values


def label_probabilities(name: str, label: str, texts: Sequence[str]) -> np.ndarray:
    """Return float64[n]: the probability of a class for each text, read without its prompt.

    Raises ModelError where the classifier cannot be loaded or has no such class.
    """
    from transformers import pipeline

    check_weights(name, list_model_files(name))
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
        raise ModelError(f"cannot load a classifier from {name}: {error_summary(error)}") from error
    labels = list(classifier.model.config.id2label.values())
    if label not in labels:
        raise ModelError(f"the classifier {name} has no label {label!r}; it has {', '.join(labels)}")
    classes = [{entry["label"]: entry["score"] for entry in result} for result in classifier(list(texts))]
    return np.array([scores[label] for scores in classes])
