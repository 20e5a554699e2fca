"""What a method needs and the data or the model lack, with how to provide it; said before any training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unremember.audits.probability import has
from unremember.data.split import Split
from unremember.engine.seams import Seams
from unremember.engine.selections.lora import LoRA
from unremember.methods.protocol import Method
from unremember.registry import losses, samplings, selections

_HINTS: Mapping[str, str] = {
    "forget": "give it the rows to forget",
    "retain": "give it rows of the same kind that are to be retained",
    "alternate": (
        "give each row another answer: one of unremember.worlds.refusals.REFUSALS, or one that "
        "`unremember alternates -m MODEL -d DATA -o FILE` invents"
    ),
    "entity": "say whom each row is about",
    "neighbour": "name, in retain rows, the entity to forget that they are near to",
    "relation": "say of retain rows how near they are: direct, indirect or general",
    "paraphrased_answer": "give each row its answer in other words",
    "perturbed_answers": "give each row a list of wrong answers of the same form",
}
"""By role or column: how to provide it."""
_REINFORCED_MODEL = (
    "a model that learned the forget set further: make it with "
    "`unremember train -m ORIGINAL -d DATA --only forget -o RUN`, and name it by method.reinforced=RUN"
)
_GRADIENTS = (
    "gradients: the weights are quantised; load the model in bfloat16 or float32, or take --selection lora"
)
_PAIRING_COLUMNS = ("entity", "neighbour", "relation")
"""Columns by which a sampling pairs rows: ``entity`` in the forget rows, the others in the retain rows."""


def missing_requirements(method: Method, split: Split, model: Any) -> tuple[str, ...]:
    """List the roles, columns, models and gradients that a method reads and that are missing, with hints.

    Args:
        method: The method.
        split: The data as they were given. What the method derives from them is not missing.
        model: The model that is to forget.
    """
    rows = method.derived(split)
    lines = [line for recipe in method.recipes for line in _missing_of_recipe(recipe, rows, model)]
    return tuple(dict.fromkeys(lines))


def _missing_of_recipe(recipe: Seams, split: Split, model: Any) -> list[str]:
    """List what one gradient method reads and a derived split lacks."""
    lines = [
        f"role {role!r} (the roles are {', '.join(split.roles)}): {_HINTS.get(role, 'give it rows')}"
        for role in recipe.roles
        if role not in split
    ]
    for term in recipe.terms:
        if term.loss is None:
            continue
        loss = losses.make(term.loss)
        columns = [need.text for need in loss.needs if need.text != "input"]
        lines += _missing_columns(split, term.role, columns)
        lines += [_REINFORCED_MODEL for need in loss.reference_needs if need.of == ""]
    for column in _sampling_columns(recipe):
        lines += _missing_columns(split, recipe.roles[0 if column == "entity" else -1], [column])
    if getattr(model, "is_quantized", False) and not isinstance(selections.make(recipe.selection), LoRA):
        lines.append(_GRADIENTS)
    return lines


def _sampling_columns(recipe: Seams) -> tuple[str, ...]:
    """Return the columns by which a method's sampling pairs rows."""
    sampling = samplings.make(recipe.sampling)
    needs = next((entry.needs for entry in samplings.all() if entry.make is type(sampling)), ())
    return tuple(name for name in needs if name in _PAIRING_COLUMNS)


def _missing_columns(split: Split, role: str, columns: list[str]) -> list[str]:
    """Return a line for each of the columns that a role lacks; none for a role that is missing itself."""
    if role not in split:
        return []
    existing = ", ".join(sorted({key for row in split[role].rows for key in row}))
    return [
        f"column {column!r} of role {role!r} (its columns are {existing}): "
        f"{_HINTS.get(column, 'give it to every row')}"
        for column in columns
        if not has(split, role, column)
    ]
