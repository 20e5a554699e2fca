"""The store: each observation is made once per (weights, data, tokenizer and template, kind) and kept on disk."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from unremember.data.split import Split
from unremember.files import disk_errors, write_text
from unremember.observe.generating import generate
from unremember.observe.gradient_norms import gradient_norms
from unremember.observe.harness import harness, harness_digest
from unremember.observe.judging import judge
from unremember.observe.records import Observations, Scores, Want
from unremember.observe.scoring import Scored, score
from unremember.observe.states import prompt_states
from unremember.processes import main, place, same
from unremember.tasks.artefact import Artefact
from unremember.tasks.language import LanguageTask

LIMIT = 200
"""Tokens a generation may have, as TOFU has it."""
NUMBERS = ("harness", "gradient_norms", "states", "judged")
"""The kinds that are an array with a number, or a vector a layer, for each example."""


@dataclasses.dataclass(frozen=True)
class Store:
    """Observations under ``folder`` (none: nothing is kept). Of several processes each makes a share, and the main one writes."""

    folder: Path | None = None

    def observe(self, of: Artefact, split: Split, wants: Sequence[Want], quiet: bool = False) -> Observations:
        """Everything in ``wants`` of one model: read from disk where it is there, else made in as few passes as can be.

        All texts of a role are scored in one pass, in which the answers of a question share its prompt; the pass over
        the true answers drafts the generations, and so does what the model observed before this one said.
        """
        model, task, artefact = of.model, cast(Any, of.task), of.verify()
        scored: dict[Want, Scores] = {}
        said: dict[Want, Sequence[str]] = {}
        numbers: dict[Want, np.ndarray] = {}
        truths: dict[Want, Sequence[str]] = {}
        place(model).eval()
        for want in wants:
            if want.kind in NUMBERS:
                numbers[want] = self.number(model, task, split, want, artefact, quiet)
        for role in dict.fromkeys(want.role for want in wants if want.kind not in NUMBERS):
            spread = {w.text for w in wants if w.role == role and w.kind == "moments"}
            texts = {w.text for w in wants if w.role == role and w.kind == "scores"}
            speaks = [w for w in wants if w.role == role and w.kind == "generations"]
            found = self.scores(model, task, split, role, sorted(spread), artefact, quiet, moments=True)
            scored.update({Want("moments", role, column): found[column].scores for column in spread})
            columns = sorted(texts | ({"answer"} if speaks else set()))
            found |= self.scores(
                model, task, split, role, [c for c in columns if c not in found], artefact, quiet
            )
            scored.update({Want("scores", role, column): found[column].scores for column in columns})
            for want in speaks:
                said[want] = self.generations(model, task, split, want, found["answer"], artefact, quiet)
                if want.options:
                    truths[want] = cut(task, split, want)
        return Observations(artefact, split, scored, said, numbers, truths)

    def number(
        self, model: Any, task: LanguageTask, split: Split, want: Want, artefact: str, quiet: bool
    ) -> np.ndarray:
        """A number an example (the norms of gradients, a metric of a task of lm-eval, what another model makes of what is said), or the
        states at the end of its prompt."""
        if want.kind == "judged":  # not kept: a name does not say which weights judged
            prompts = [task.prompt(row) for row in split[want.role].rows]
            said = self.observe(
                Artefact(model, task), split, [Want("generations", want.role)], quiet
            ).generations(want.role)
            name, label = want.options
            return judge(name, label, prompts, said, quiet)
        data = harness_digest(*want.options) if want.kind == "harness" else split[want.role].digest
        name = key(artefact, data, task.digest, want.kind, want.role, want.text)
        if (kept := same(self.read_array(name))) is not None:
            return kept
        if want.kind == "harness":
            found = harness(model, task.tokenizer, want.role, want.text, *want.options)
        else:
            read = prompt_states if want.kind == "states" else gradient_norms
            found = read(model, task.encode(split, want.role, [want.text])[want.text], quiet)
        self.write_array(name, found)
        return found

    def read_array(self, name: str) -> np.ndarray | None:
        path = self.path(name, "npy")
        try:
            return np.load(path) if path and path.exists() else None
        except (OSError, EOFError, ValueError):
            return None

    def write_array(self, name: str, found: np.ndarray) -> None:
        path = self.path(name, "npy")
        if path and main():
            with disk_errors(path):
                np.save(path.with_suffix(".partial.npy"), found)
                os.replace(path.with_suffix(".partial.npy"), path)

    def scores(
        self,
        model: Any,
        task: LanguageTask,
        split: Split,
        role: str,
        columns: Sequence[str],
        artefact: str,
        quiet: bool,
        moments: bool = False,
    ) -> dict[str, Scored]:
        keys = {
            c: key(artefact, split[role].digest, task.digest, "moments" if moments else "scores", c)
            for c in columns
        }
        found = {c: read for c in columns if (read := same(self.read(keys[c])))}
        missing = [c for c in columns if c not in found]
        if missing:
            made = score(
                model, task.encode(split, role, missing), task.tokenizer.eos_token_id, quiet, moments
            )
            for column, one in made.items():
                self.write(keys[column], one)
            found.update(made)
        return found

    def generations(
        self,
        model: Any,
        task: LanguageTask,
        split: Split,
        want: Want,
        drafted: Scored,
        artefact: str,
        quiet: bool,
    ) -> list[str]:
        """What the model says to the prompts of a role; what the last observed model said to them drafts it."""
        role, limit = want.role, want.options[0] if want.options else LIMIT
        asked = (split[role].digest, task.digest, "generated ids", str(limit))
        mine, last = key(artefact, *asked), key("last", *asked)
        said = same(self.read_ids(mine))
        if said is None:
            texts = task.encode(split, role, ["answer"])["answer"]
            earlier = same(self.read_ids(last)) or []
            said = generate(model, texts, drafted, task.tokenizer.eos_token_id, limit, earlier, quiet)
            self.write_ids(mine, said)
            self.write_ids(last, said)
        return [text.strip() for text in task.tokenizer.batch_decode(said, skip_special_tokens=True)]

    def read_ids(self, name: str) -> list[list[int]] | None:
        path = self.path(name, "json")
        if path is None or not path.exists():
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            return None

    def write_ids(self, name: str, ids: list[list[int]]) -> None:
        path = self.path(name, "json")
        if path:
            write_text(path, json.dumps(ids))

    def path(self, name: str, suffix: str) -> Path | None:
        if self.folder is None:
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{name}.{suffix}"

    def write(self, name: str, one: Scored) -> None:
        path = self.path(name, "safetensors")
        if path is None or not main():
            return
        fields = ("rows", "offsets", "logprobs", "matches", "ends", "moments")
        arrays = {f: a for f in fields if (a := getattr(one.scores, f)) is not None} | {"greedy": one.greedy}
        tensors = {f: torch.from_numpy(np.ascontiguousarray(a)) for f, a in arrays.items()}
        with disk_errors(path):
            save_file(
                tensors, path.with_suffix(".partial"), metadata={"texts": json.dumps(list(one.scores.texts))}
            )
            os.replace(path.with_suffix(".partial"), path)

    def read(self, name: str) -> Scored | None:
        path = self.path(name, "safetensors")
        if path is None or not path.exists():
            return None
        try:
            with safe_open(path, "np") as file:
                arrays: Mapping[str, np.ndarray] = {f: file.get_tensor(f) for f in file.keys()}  # noqa: SIM118
                texts = json.loads(file.metadata()["texts"])
        except (SafetensorError, OSError, ValueError):
            return None
        fields = {f: a for f, a in arrays.items() if f != "greedy"}
        return Scored(Scores(**fields, texts=texts), arrays["greedy"])


def cut(task: LanguageTask, split: Split, want: Want) -> list[str]:
    """The true answers of a role, each cut to its first ``options[0]`` tokens."""
    texts = task.encode(split, want.role, ["answer"])["answer"]
    ids = [texts.answer(i)[: want.options[0]].tolist() for i in range(len(texts))]
    return [text.strip() for text in task.tokenizer.batch_decode(ids, skip_special_tokens=True)]


def key(*parts: str) -> str:
    """The name of an observation: a hash of everything that decides it."""
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:32]
