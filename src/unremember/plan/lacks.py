"""What a recipe needs and is not there, and how to make it: said before any training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unremember.audits.probability import has
from unremember.data.split import Split
from unremember.engine.seams import Seams
from unremember.engine.selections.lora import LoRA
from unremember.methods.protocol import Method
from unremember.registry import losses, samplings, selections

HOW: Mapping[str, str] = {
    "forget": "the rows that shall go",
    "retain": "rows of the same kind that stay",
    "alternate": "give each row another answer: one of unremember.worlds.refusals.REFUSALS, or one that `unremember alternates` invents",
    "entity": "say whom each row is about",
    "neighbour": "name, in retain rows, the entity to forget that they are near to",
    "relation": "say of retain rows how near they are: direct, indirect or general",
    "paraphrased_answer": "give each row its answer in other words",
    "perturbed_answers": "give each row a list of wrong answers of the same form",
}
REINFORCED = (
    "a model that learned the forget set further: make it with `unremember train -m ORIGINAL -d DATA --only forget -o RUN`, "
    "name it by method.reinforced=RUN"
)
GRADIENTS = (
    "gradients: the weights are quantised; load the model in bfloat16 or float32, or take --selection lora"
)


def lacking(method: Method, split: Split, model: Any) -> tuple[str, ...]:
    """List the roles, columns, models and gradients that a method reads and that are missing, each with how to make it.

    ``split`` is the data as they were given; what the method derives from them is not missing.
    """
    rows = method.derived(split)
    found = [line for recipe in method.recipes for line in lacking_recipe(recipe, rows, model)]
    return tuple(dict.fromkeys(found))


def lacking_recipe(recipe: Seams, split: Split, model: Any) -> list[str]:
    """List what one gradient method reads and a split that is derived already lacks."""
    lines = [
        f"role {role!r} (there are {', '.join(split.roles)}): {HOW.get(role, 'rows of their own')}"
        for role in recipe.roles
        if role not in split
    ]
    for term in recipe.terms:
        if term.loss is None:
            continue
        loss = losses.make(term.loss)
        for need in loss.needs:
            if term.role in split and need.text != "input" and not has(split, term.role, need.text):
                lines.append(column(split, term.role, need.text))
        lines += [REINFORCED for need in loss.reference_needs if need.of == ""]
    for name in sampling_columns(recipe):
        role = recipe.roles[0 if name == "entity" else -1]
        if role in split and not has(split, role, name):
            lines.append(column(split, role, name))
    if getattr(model, "is_quantized", False) and not isinstance(selections.make(recipe.selection), LoRA):
        lines.append(GRADIENTS)
    return lines


def sampling_columns(recipe: Seams) -> tuple[str, ...]:
    """Name the columns that pair a method's rows: whom a row to forget is about, and whose neighbour a retain row is."""
    sampling = samplings.make(recipe.sampling)
    needs = next((entry.needs for entry in samplings.all() if entry.make is type(sampling)), ())
    return tuple(name for name in needs if name in ("entity", "neighbour", "relation"))


def column(split: Split, role: str, name: str) -> str:
    there = ", ".join(sorted({key for row in split[role].rows for key in row}))
    return f"column {name!r} of role {role!r} (there are {there}): {HOW.get(name, 'every row needs it')}"
