"""A small knowledge graph shaped after FaithUn (arXiv 2502.19207) and its multiple-choice scores.

People with four relations; three wordings of every fact, and two-hop questions through the spouse. A row's
``hops`` are the (person, relation) facts that its answer rests on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, PreTrainedTokenizerFast

from unremember.data.split import Row, Split, make_split
from unremember.models.presets import fresh_model
from unremember.tasks.text import Template

FORGOTTEN = 12
VALUES = {"country": 10, "trade": 10, "tongue": 8}
TEMPLATE = Template("{question} ")
SCORES = ("UA_ext", "TA", "SA", "MA_t", "MA_f")

Fact = tuple[int, str]


@dataclasses.dataclass(frozen=True)
class Graph:
    """``facts`` (person, relation) → answer, and the facts of the forget (12), retain (10 %) and test (70
    %) clusters."""

    facts: Mapping[Fact, str]
    forget: tuple[Fact, ...]
    retain: tuple[Fact, ...]
    test: tuple[Fact, ...]
    people: int
    seed: int

    def row(self, question: str, fact: Fact, *through: Fact) -> Row:
        answer, rng = (
            self.facts[fact],
            np.random.default_rng([self.seed, fact[0], *fact[1].encode(), len(through)]),
        )
        pool = sorted(
            {value for (_, relation), value in self.facts.items() if relation == fact[1]} - {answer}
        )
        wrong = [pool[i] for i in rng.permutation(len(pool))[:2]]
        return {
            "question": question,
            "answer": answer,
            "perturbed_answers": wrong,
            "hops": [list(hop) for hop in (fact, *through)],
            "entity": f"p{fact[0]}",
        }

    def asked(self, facts: Sequence[Fact], wording: int = 0) -> list[Row]:
        return [self.row(f"{relation}-{wording} p{person}", (person, relation)) for person, relation in facts]

    def chains(self, through: Sequence[Fact]) -> list[Row]:
        """Two-hop questions that rest on one of some facts."""
        wanted = set(through)
        found = []
        for person in range(self.people):
            spouse = (person, "spouse")
            for relation in VALUES:
                last = (int(self.facts[spouse][1:]), relation)
                if wanted & {spouse, last}:
                    found.append(self.row(f"{relation}-0 spouse-0 p{person}", last, spouse))
        return found

    def everything(self, without: Sequence[Fact] = ()) -> list[Row]:
        """All that is learned: three wordings a fact and the chains; for the oracle ``without`` facts and
        what rests on them."""
        gone = set(without)
        rows = [row for wording in range(3) for row in self.asked(list(self.facts), wording)] + self.chains(
            list(self.facts)
        )
        return [row for row in rows if not gone & {(hop[0], hop[1]) for hop in row["hops"]}]

    def split(self) -> Split:
        return make_split(
            {
                "forget": self.asked(self.forget),
                "retain": self.asked(self.retain),
                "train": self.everything(),
                "without": self.everything(self.forget),
            }
        )

    def questions(self) -> dict[str, list[Row]]:
        """The rows behind each score."""
        answers, gone = {self.facts[fact] for fact in self.forget}, set(self.forget)
        dependent = self.chains(self.forget)
        kept = [row for row in self.chains(self.test) if row not in dependent]
        same = [fact for fact, value in self.facts.items() if value in answers and fact not in gone]
        return {
            "UA": self.asked(self.forget),
            "UA_ext": self.asked(self.forget, 1) + self.asked(self.forget, 2),
            "TA": self.asked(self.test),
            "SA": self.asked(same),
            "MA_f": dependent,
            "MA_t": kept,
        }


def graph(people: int = 30, seed: int = 0, draw: int = 0) -> Graph:
    """The same facts for the same ``seed``; ``draw`` says which of them are to be forgotten, kept and
    tested."""
    rng = np.random.default_rng([seed, 7])
    pairs = rng.permutation(people).reshape(-1, 2).tolist()
    spouses = {a: b for one, other in pairs for a, b in ((one, other), (other, one))}
    facts: dict[Fact, str] = {}
    for person in range(people):
        facts |= {
            (person, relation): f"{relation}{rng.integers(count)}" for relation, count in VALUES.items()
        }
        facts[person, "spouse"] = f"p{spouses[person]}"
    order = [list(facts)[i] for i in np.random.default_rng([seed, 8, draw]).permutation(len(facts))]
    kept = FORGOTTEN + round(0.1 * len(order))
    tested = kept + round(0.7 * len(order))
    return Graph(
        facts, tuple(order[:FORGOTTEN]), tuple(order[FORGOTTEN:kept]), tuple(order[kept:tested]), people, seed
    )


def word_tokenizer(rows: Sequence[Row]) -> Any:
    """One id a word; 0 ends a text, 1 pads."""
    words = sorted({word for row in rows for word in [*row["question"].split(), row["answer"]]})
    vocabulary = {word: i for i, word in enumerate(["<end>", "<pad>", *words])}
    base = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    base.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=base, eos_token="<end>", pad_token="<pad>")


def net(vocabulary: int, seed: int = 0) -> Any:
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=32,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
        initializer_range=0.1,
    )
    return fresh_model(config, seed)


@torch.no_grad()
def logits(model: Any, tokenizer: Any, rows: Sequence[Row]) -> Tensor:
    """[n, V]: what the model says after each question."""
    model.eval()
    prompts = tokenizer([TEMPLATE.prompt.format(**row) for row in rows])["input_ids"]
    made = torch.empty(len(rows), model.config.vocab_size)
    for length in {len(prompt) for prompt in prompts}:
        at = [i for i, prompt in enumerate(prompts) if len(prompt) == length]
        made[at] = model(input_ids=torch.tensor([prompts[i] for i in at])).logits[:, -1]
    return made


def picked(model: Any, tokenizer: Any, rows: Sequence[Row], bias: Tensor | float = 0.0) -> np.ndarray:
    """bool[n]: whether the answer is the likeliest of its three options; all answers are one token.
    ``bias`` [V] joins the logits."""
    options = tokenizer.convert_tokens_to_ids(
        [word for row in rows for word in (row["answer"], *row["perturbed_answers"])]
    )
    said = logits(model, tokenizer, rows) + bias
    return (said.gather(1, torch.tensor(options).view(-1, 3)).argmax(1) == 0).numpy()


def chances(model: Any, tokenizer: Any, rows: Sequence[Row]) -> np.ndarray:
    """float[n]: P(answer | question)."""
    answers = tokenizer.convert_tokens_to_ids([row["answer"] for row in rows])
    return logits(model, tokenizer, rows).softmax(-1)[torch.arange(len(rows)), answers].numpy()


def scores(
    model: Any, tokenizer: Any, questions: Mapping[str, Sequence[Row]], bias: Tensor | float = 0.0
) -> dict[str, float]:
    """The share of right choices in every set of questions, 0 … 1: UA, UA_ext and MA_f fall with
    forgetting, TA, SA and MA_t stay."""
    return {name: float(picked(model, tokenizer, rows, bias).mean()) for name, rows in questions.items()}


def distance(one: Mapping[str, float], target: Mapping[str, float]) -> float:
    """The mean difference of the five scores that FaithUn averages."""
    return sum(abs(one[name] - target[name]) for name in SCORES) / len(SCORES)
