"""Scope-aware unlearning: one more term that keeps forgetting inside its scope."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from unremember.data.split import Role, Split
from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.registry import methods


@methods.register(
    "scope_aware",
    paper="Keeping an Eye on LLM Unlearning: The Hidden Risk and Remedy",
    arxiv="2506.00359",
    needs=("forget", "retain"),
    taxonomy="global.ascent",
    fidelity="reconstruction",
    cost="3 forwards, 3 backwards",
)
def scope_aware(base: Any = "npo", eta: float = 5.0) -> Recipe:
    """A base method + η · cross-entropy of a retain answer behind a forget question and its own question.

    L_base + η · NLL(y_r | x_f ⊕ x_r), nothing asked of y_f: whatever stands in a forget question, a retain question
    behind it is still answered. ``base`` is any method (a name, a mapping, a Recipe); η = 0 is the base itself. The
    paper's equations are images: order and separator (both questions in one turn, joined by a blank) are inferred.
    """
    recipe = base if isinstance(base, Recipe) else methods.make(base)
    if not eta:
        return recipe
    return dataclasses.replace(
        recipe, terms=(*recipe.terms, Term("scope", "nll", float(eta))), derive=Scope(recipe.derive)
    )


@dataclasses.dataclass(frozen=True)
class Scope:
    """Adds the role ``scope``, behind what the base derives: pairs of a forget and a retain row.

    As many pairs as the longer of the two roles has rows, each of its rows once, beside a row of the other that is drawn
    by its content: a deleted row moves the pairs of no other as long as the other role stays.
    """

    before: Callable[[Split], Split] | None = None

    def __call__(self, split: Split) -> Split:
        made = self.before(split) if self.before else split
        forget, retain = made["forget"], made["retain"]
        if len(forget) >= len(retain):
            pairs = [(f, int(key) % len(retain)) for f, key in enumerate(forget.keys)]
        else:
            pairs = [(int(key) % len(forget), r) for r, key in enumerate(retain.keys)]
        asked, kept = parts(forget), parts(retain)
        return made.with_rows(
            scope=[{"question": f"{asked[f][0]} {kept[r][0]}", "answer": kept[r][1]} for f, r in pairs]
        )


def parts(role: Role) -> list[tuple[str, str]]:
    """(prompt, answer) of every row; a document is cut before the word at its middle."""
    if any("question" in row for row in role.rows):
        return list(zip(role.column("question"), role.column("answer")))
    texts = [str(text) for text in role.column("text" if "text" in role.rows[0] else "answer")]
    middles = [max(text.find(" ", len(text) // 2), 0) or len(text) // 2 for text in texts]
    return [(text[:middle], text[middle:]) for text, middle in zip(texts, middles)]
