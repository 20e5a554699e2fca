"""Knowledge neurons (KLUE): the MLP neurons that carry what the forget questions ask, and not merely their answers."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from unremember.data.split import Role, Row, Split
from unremember.engine.losses import ANSWER
from unremember.engine.seams import Context, Selected
from unremember.engine.selections import only
from unremember.errors import ConfigError, ModelError, above_zero
from unremember.models import causal
from unremember.registry import selections

DOWN = re.compile(r"(^|\.)(down_proj|mlp\.c_proj|dense_4h_to_h|fc2|fc_out)$")
BATCH = 64
Positions = Literal["max", "mean", "last"]


@selections.register(
    "knowledge_neurons",
    paper="FaithUn: Toward Faithful Forgetting in Language Models",
    arxiv="2502.19207",
    needs=("forget", "answer"),
    taxonomy="local.retraining",
    fidelity="reconstruction",
)
@dataclasses.dataclass(frozen=True)
class KnowledgeNeurons:
    """The ``share`` of all MLP neurons with the highest contextual score: their rows of up and gate, their column of down.

    A neuron is one input h of a block's down projection. Its attribution for a text is A(x, y) = h · ∂P(y|x)/∂h with P the
    product over the answer's tokens, reduced over the positions that lead to the answer (``max``, ``mean``, or the ``last``
    of the prompt). Score = mean over the forget rows of A(x, y) − ``regularisation`` · mean of A(x', y) over ``mismatched``
    other questions x', drawn once an answer: what an answer lights up under any question is not knowledge. Localised once,
    before training. No authors' code is public: the formula is second-hand, its constants are ours.
    """

    share: float = 0.01
    regularisation: float = 1.0
    mismatched: int = 8
    positions: Positions = "max"

    def __post_init__(self) -> None:
        above_zero(self, "share")
        if self.share > 1:
            raise ConfigError(f"share={self.share}: it is the part of all neurons that may move, at most 1")
        if self.positions not in get_args(Positions):
            raise ConfigError(f"positions={self.positions!r}: known are {', '.join(get_args(Positions))}")

    def apply(self, context: Context) -> Selected:
        mlps = [MLP.of(block) for block in causal.decoder_blocks(context.model)]
        scores = self.scores(context, mlps)
        flat = torch.cat(scores)
        chosen = torch.zeros_like(flat)
        chosen[flat.topk(max(1, round(self.share * len(flat)))).indices] = 1
        parts = chosen.split([len(of) for of in scores])
        masks = {id(p): mask for mlp, part in zip(mlps, parts) if part.any() for p, mask in mlp.masks(part)}
        named = {name: masks[id(p)] for name, p in context.model.named_parameters() if id(p) in masks}
        return dataclasses.replace(only(context.model, named), masks=named)

    def scores(self, context: Context, mlps: Sequence[MLP]) -> list[Tensor]:
        """The contextual score of every neuron: Tensor[d_ff] a block."""
        rows = context.split[context.roles[0]].rows
        found = self.attribution(context, mlps, rows, np.full(len(rows), 1 / len(rows)))
        others, weights = self.mismatches(context, rows)
        if not others:
            return found
        shallow = self.attribution(context, mlps, others, weights)
        return [of - self.regularisation * without for of, without in zip(found, shallow)]

    def mismatches(self, context: Context, rows: Sequence[Row]) -> tuple[list[Row], np.ndarray]:
        """Every distinct answer behind questions with another answer about somebody else, and the weight of each such text."""
        pool = [row for role in context.roles for row in context.split[role].rows if "question" in row]
        counts = collections.Counter(str(row["answer"]) for row in rows)
        rng = np.random.default_rng(context.seed)
        made: list[Row] = []
        weights: list[float] = []
        for row in {str(row["answer"]): row for row in rows}.values():
            shuffled = (pool[i] for i in rng.permutation(len(pool)))
            picked = list(islice((other for other in shuffled if unrelated(other, row)), self.mismatched))
            made += [{"question": other["question"], "answer": row["answer"]} for other in picked]
            weights += [counts[str(row["answer"])] / len(rows) / len(picked) for _ in picked]
        return made, np.array(weights)

    def attribution(
        self, context: Context, mlps: Sequence[MLP], rows: Sequence[Row], weights: np.ndarray
    ) -> list[Tensor]:
        """Σ weight · A over texts, one Tensor[d_ff] a block: one forward and backward a text, to the activations alone.

        The backward is of log P, and A = P · h · ∂log P/∂h: that of P itself, where an answer has no chance, computes with numbers
        too small to be fast.
        """
        model, task = context.model.eval(), context.task
        data = task.encode(Split({"read": Role("read", rows)}), "read", ["answer"])
        work, _ = task.sizes(data, "answer")
        order = np.argsort(work, kind="stable")
        totals = [torch.zeros(mlp.width, device=mlp.down.weight.device) for mlp in mlps]
        with caught(mlps) as hidden:
            for at in np.split(order, range(BATCH, len(order), BATCH)):
                logprobs = task.forward(model, {"read": (data, at)}, {"read": [ANSWER]})["read"].read(ANSWER)
                gradients = torch.autograd.grad(logprobs.values.sum(), hidden)
                chances = logprobs.sum().detach().exp()
                weight, ends = (
                    torch.from_numpy(weights[at]).to(chances) * chances,
                    torch.from_numpy(work[at] - 1).to(logprobs.counts),
                )
                for total, h, gradient in zip(totals, hidden, gradients):
                    each = reduce(
                        causal.unpacked((h.detach() * gradient).float(), work[at].tolist()),
                        ends,
                        logprobs.counts,
                        self.positions,
                    )
                    total += weight.to(each) @ each
        return totals


@dataclasses.dataclass(frozen=True)
class MLP:
    """The linear layers of a block's MLP: ``ups`` into the ``width`` neurons (a gate among them), ``down`` out of them."""

    ups: tuple[Any, ...]
    down: Any
    width: int

    @classmethod
    def of(cls, block: nn.Module) -> MLP:
        """Raises ModelError where the block has not exactly one known down projection."""
        names = [name for name, _ in block.named_modules() if DOWN.search(name)]
        if len(names) != 1:
            raise ModelError(
                f"{type(block).__name__} has {len(names)} MLP output projections: knowledge neurons need exactly one a block"
            )
        down: Any = block.get_submodule(names[0])
        width = down.weight.shape[out_axis(down) - 1]
        siblings = block.get_submodule(names[0].rpartition(".")[0]).children()
        ups = [m for m in siblings if m is not down and getattr(m, "weight", torch.empty(0)).dim() == 2]
        return cls(tuple(ups), down, width)

    def masks(self, chosen: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Each weight of the ``chosen`` (Tensor[width] of 0 and 1) neurons with the mask of its entries; a fused gate repeats them."""
        for up in self.ups:
            rows = chosen.to(up.weight).repeat(up.weight.shape[out_axis(up)] // self.width)
            yield up.weight, (rows[:, None] if out_axis(up) == 0 else rows).expand_as(up.weight)
            if up.bias is not None:
                yield up.bias, rows
        columns = chosen.to(self.down.weight)
        yield (
            self.down.weight,
            (columns if out_axis(self.down) == 0 else columns[:, None]).expand_as(self.down.weight),
        )


def out_axis(linear: nn.Module) -> int:
    """0 where the weight is [out, in]; 1 for the [in, out] of GPT-2's Conv1D."""
    return 0 if isinstance(linear, nn.Linear) else 1


def unrelated(other: Row, row: Row) -> bool:
    """Another answer, and about somebody else where the rows say about whom they are."""
    same = row.get("entity") is not None and row.get("entity") == other.get("entity")
    return not same and str(other["answer"]).casefold() != str(row["answer"]).casefold()


def reduce(each: Tensor, ends: Tensor, counts: Tensor, positions: Positions) -> Tensor:
    """[B, T, d_ff] → [B, d_ff] over the ``ends`` int64[B] positions before the last; the rest has no gradient."""
    if positions == "mean":
        return each.sum(1) / ends[:, None]
    if positions == "last":
        return each[torch.arange(len(each), device=each.device), ends - counts]
    outside = torch.arange(each.shape[1], device=each.device) >= ends[:, None]
    return each.masked_fill(outside[..., None], -torch.inf).amax(1)


@contextlib.contextmanager
def caught(mlps: Sequence[MLP]) -> Iterator[list[Tensor]]:
    """The neurons of the latest forward, one Tensor[…, d_ff] a block, ready to be differentiated by."""
    hidden: list[Tensor] = [torch.empty(0)] * len(mlps)

    def catch(i: int) -> Any:
        def hook(module: nn.Module, inputs: Any) -> None:
            hidden[i] = inputs[0].requires_grad_()

        return hook

    hooks = [mlp.down.register_forward_pre_hook(catch(i)) for i, mlp in enumerate(mlps)]
    try:
        yield hidden
    finally:
        for hook in hooks:
            hook.remove()
