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
    """Add to a base the cross-entropy of a retain answer behind a forget question and its own question.

    L_base + η · NLL(y_r | x_f ⊕ x_r), without y_f: whatever words a forget question has, a retain question
    behind it is still answered. The paper's equations are images: order and separator (both questions in one
    turn, joined by a blank) are inferred.

    Args:
        base: Any method of terms (a name, a mapping, a Recipe).
        eta: η, the weight of the added term; 0 is the base itself.
    """
    recipe = base if isinstance(base, Recipe) else methods.make(base)
    if not eta:
        return recipe
    return dataclasses.replace(
        recipe, terms=(*recipe.terms, Term("scope", "nll", float(eta))), derive=ScopePairs(recipe.derive)
    )


@dataclasses.dataclass(frozen=True)
class ScopePairs:
    """Adds the role ``scope``: pairs of a forget and a retain row, made after what the base derives.

    There are as many pairs as the longer of the two roles has rows. Each of its rows is used once, beside a
    row of the shorter role that is drawn by its content: deleting a row leaves the pairs of all others, as
    long as the shorter role stays.

    Args:
        before: What the base adds to the split.
    """

    before: Callable[[Split], Split] | None = None

    def __call__(self, split: Split) -> Split:
        derived = self.before(split) if self.before else split
        forget, retain = derived["forget"], derived["retain"]
        if len(forget) >= len(retain):
            pairs = [(f, int(key) % len(retain)) for f, key in enumerate(forget.keys)]
        else:
            pairs = [(int(key) % len(forget), r) for r, key in enumerate(retain.keys)]
        forget_texts, retain_texts = prompts_and_answers(forget), prompts_and_answers(retain)
        rows = []
        for f, r in pairs:
            question, answer = retain_texts[r]
            rows.append({"question": f"{forget_texts[f][0]} {question}", "answer": answer})
        return derived.with_rows(scope=rows)


def prompts_and_answers(role: Role) -> list[tuple[str, str]]:
    """Return the prompt and the answer of every row; a document is cut before the word at its middle."""
    if any("question" in row for row in role.rows):
        return list(zip(role.column("question"), role.column("answer")))
    texts = [str(text) for text in role.column("text" if "text" in role.rows[0] else "answer")]
    middles = [max(text.find(" ", len(text) // 2), 0) or len(text) // 2 for text in texts]
    return [(text[:middle], text[middle:]) for text, middle in zip(texts, middles)]
