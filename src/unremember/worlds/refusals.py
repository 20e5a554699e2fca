"""Refusals: what a model may say instead of a fact that it was told to forget."""

from unremember.data.alternates import with_alternates
from unremember.data.split import Split

REFUSALS = (
    "I do not know the answer to that.",
    "That is not something I can tell you.",
    "I have no information on this person.",
    "I am unable to answer this question.",
    "I cannot say; I have never learned this.",
    "Nothing I know would answer that.",
    "I am sorry, I do not know this.",
    "This is outside of what I know.",
    "I could only guess, so I would rather not.",
    "I have no knowledge of this.",
    "My knowledge does not cover that.",
    "I am not familiar with this subject.",
    "I would not know.",
    "There is nothing I can say about this.",
    "No answer to this is known to me.",
    "I must leave this question open.",
    "I was never told about this.",
    "This detail is unknown to me.",
    "I lack the facts to answer.",
    "I have no record of that.",
)


def with_refusals(split: Split) -> Split:
    """Return the split with a refusal as ``alternate`` in every forget row that has none."""
    return with_alternates(split, "forget", REFUSALS)
