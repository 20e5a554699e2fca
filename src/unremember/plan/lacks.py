"""What a recipe needs and is not there, and how to make it: said before any training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unremember.audits.probability import has
from unremember.data.split import Split
from unremember.engine.seams import Recipe
from unremember.engine.selections.lora import LoRA
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
GRADIENTS = "gradients: the weights are quantised; load the model in bfloat16 or float32, or take --selection lora"


def lacking(recipe: Recipe, split: Split, model: Any) -> tuple[str, ...]:
    """Roles, columns, models and gradients that the recipe's parts read and that are not there, each with how to make it."""
    found = [f"role {role!r} (there are {', '.join(split.roles)}): {HOW.get(role, 'rows of their own')}"
             for role in recipe.roles if role not in split]  # fmt: skip
    for term in recipe.terms:
        for need in losses.make(term.loss).needs:
            if term.role in split and need.text != "input" and not has(split, term.role, need.text):
                found.append(column(split, term.role, need.text))
        found += [REINFORCED for need in losses.make(term.loss).reference_needs if need.of == ""]
    for name in of_sampling(recipe):
        role = recipe.roles[0 if name == "entity" else -1]
        if role in split and not has(split, role, name):
            found.append(column(split, role, name))
    if getattr(model, "is_quantized", False) and not isinstance(selections.make(recipe.selection), LoRA):
        found.append(GRADIENTS)
    return tuple(dict.fromkeys(found))


def of_sampling(recipe: Recipe) -> tuple[str, ...]:
    """The columns that pair its rows: whom a row to forget is about, and whose neighbour a retain row is."""
    made = samplings.make(recipe.sampling)
    needs = next((entry.needs for entry in samplings.all() if entry.make is type(made)), ())
    return tuple(name for name in needs if name in ("entity", "neighbour", "relation"))


def column(split: Split, role: str, name: str) -> str:
    there = ", ".join(sorted({key for row in split[role].rows for key in row}))
    return f"column {name!r} of role {role!r} (there are {there}): {HOW.get(name, 'every row needs it')}"
