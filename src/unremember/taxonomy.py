"""The field's taxonomy: what can be done about data in a model, each element with the id that parts carry.

The elements are those of two surveys (arXiv 2404.02062, 2511.09855).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Element:
    """One element of the taxonomy.

    Args:
        id: ``family.name``.
        what: What it is, in one sentence.
        how: How this package brings it: as ``code``, through a ``library``, or as a ``page`` of the
            documentation.
        where: Import paths of what implements it beside the registered parts.
    """

    id: str
    what: str
    how: Literal["code", "library", "page"] = "code"
    where: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        return self.id.partition(".")[0]


FAMILIES: Mapping[str, str] = {
    "around": "before and around unlearning",
    "global": "all weights",
    "local": "some weights",
    "architecture": "parts added to the model",
    "input": "inputs and outputs",
    "certified": "with a guarantee",
    "safeguard": "technical safeguards",
    "evaluation": "evaluation",
    "governance": "trust and governance",
}

ELEMENTS = (
    Element("around.cleaning", "De-duplication and removal of personal data before training."),
    Element("around.retraining", "Retraining without the data: the oracle."),
    Element("around.private_training", "Differentially private training.", "library"),
    Element("around.instructions", "Instructions to the model not to say it."),
    Element("around.filters", "Filters and detectors on outputs."),
    Element("around.decoding", "Changed sampling and decoding."),
    Element("around.editing", "Model editing."),
    Element("global.sharding", "Shards of data with models or adapters of their own."),
    Element("global.ascent", "Ascent on the forget set, alone or with descent, KL or a floor."),
    Element("global.preference", "Preference for another answer, or for none."),
    Element("global.distillation", "A teacher without the data."),
    Element("global.relabelling", "Other labels in place of the forgotten ones."),
    Element("global.influence", "Fisher, influence and Newton steps."),
    Element("global.alignment", "Reinforcement learning from rewards.", "library"),
    Element("local.retraining", "Training of located weights or hidden states alone."),
    Element("local.arithmetic", "Arithmetic with task vectors."),
    Element("local.modification", "Knowledge neurons, pruning, or weights changed directly."),
    Element("architecture.adapters", "Layers that learn to forget, kept apart or merged."),
    Element("architecture.erasure", "Linear erasure of a concept from hidden states."),
    Element("architecture.offset", "Logits offset by small models."),
    Element("input.modification", "Changed prompts, embeddings and outputs."),
    Element("input.memory", "A memory of edits that is looked up at inference."),
    Element("input.in_context", "Demonstrations in the context."),
    Element("certified.removal", "Newton steps with noise where the loss is convex."),
    Element("safeguard.privacy_bound", "Differential privacy as a bound for a group's deletion.", "library"),
    Element("safeguard.encryption", "Encrypted storage whose key is destroyed.", "library"),
    Element("safeguard.federated", "Removal of a client from federated learning.", "library"),
    Element("safeguard.ephemeral", "Memories with a time to live."),
    Element("safeguard.enclaves", "Enclaves and multi-party computation.", "page"),
    Element("safeguard.proofs", "Cryptographic proofs of unlearning.", "page"),
    Element("safeguard.stores", "Deletion from searchable stores."),
    Element("safeguard.resistance", "Training that resists relearning."),
    Element("evaluation.forgetting", "What the model still says or prefers of the forget set."),
    Element("evaluation.membership", "Membership inference."),
    Element("evaluation.reconstruction", "Reconstruction, and what comparing two versions reveals."),
    Element("evaluation.distance", "Distance to the retrained model."),
    Element("evaluation.retaining", "Utility, neighbours, general tasks, fluency."),
    Element(
        "evaluation.runtime", "Time, forwards and backwards, memory.", "code", ("unremember.plan.card:plan",)
    ),
    Element("evaluation.datasets", "Benchmarks and generated worlds."),
    Element("evaluation.recovery", "Attacks that recover the forgotten data."),
    Element("evaluation.black_box", "Audits that see a model's answers only."),
    Element(
        "evaluation.streams",
        "Requests one after another.",
        "code",
        ("unremember.experiments.requests:run_streams",),
    ),
    Element("governance.attestation", "Certificates and a status that anyone can read."),
    Element("governance.auditing", "Logs, independent tests, an audit pack."),
    Element("governance.regulation", "What laws require, and by when."),
    Element("governance.accountability", "Roles and approvals."),
    Element(
        "governance.impact",
        "Model cards and impact assessments.",
        "code",
        ("unremember.report.model_card:model_card",),
    ),
    Element("governance.lifecycle", "Provenance, lineage, retention."),
    Element("governance.incidents", "An old request that comes back."),
    Element("governance.standards", "A cross-walk to standards.", "page"),
)
ELEMENT_BY_ID: Mapping[str, Element] = {element.id: element for element in ELEMENTS}


def count_covered(elements: Iterable[tuple[Element, tuple[str, ...]]]) -> tuple[int, int]:
    """Count a coverage: (elements that something implements, elements that code or a library can bring)."""
    implemented = [bool(names) for element, names in elements if element.how != "page"]
    return sum(implemented), len(implemented)


def coverage(parts: Iterable[tuple[str, str]]) -> list[tuple[Element, tuple[str, ...]]]:
    """Return every element with the names of what implements it; () where nothing does yet.

    Args:
        parts: (taxonomy id, name) of each part.
    """
    names: dict[str, list[str]] = {element.id: list(element.where) for element in ELEMENTS}
    for element_id, name in parts:
        names[element_id].append(name)
    return [(element, tuple(names[element.id])) for element in ELEMENTS]
