"""Knowledge neurons (KLUE): the MLP neurons that carry what the forget questions ask."""

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
from unremember.errors import ConfigError, ModelError, require_not_negative, require_positive
from unremember.models import causal
from unremember.registry import selections

Positions = Literal["max", "mean", "last"]

_DOWN_PROJECTION = re.compile(r"(^|\.)(down_proj|mlp\.c_proj|dense_4h_to_h|fc2|fc_out)$")
_BATCH = 64
"""Texts in a forward of the attribution."""


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
    """Move the MLP neurons of the highest contextual score: their rows of up and gate, their column of down.

    A neuron is one input h of a block's down projection. Its attribution for a text is A(x, y) = h ·
    ∂P(y|x)/∂h with P the product over the answer's tokens, reduced over the positions that lead to the
    answer. Score = mean over the forget rows of A(x, y) − ``regularisation`` · mean of A(x', y) over other
    questions x', drawn once an answer: what an answer lights up under any question is not knowledge.
    Localised once, before training. No authors' code is public: the formula is second-hand, its constants are
    ours.

    Args:
        share: The part of all MLP neurons that may move, above 0 and at most 1.
        regularisation: Weight of the attribution without the context.
        mismatched: Other questions an answer is measured under.
        positions: How attributions are reduced over positions: ``max``, ``mean``, or ``last`` (of the
            prompt).
    """

    share: float = 0.01
    regularisation: float = 1.0
    mismatched: int = 8
    positions: Positions = "max"

    def __post_init__(self) -> None:
        require_positive(self, "share")
        require_not_negative(self, "regularisation", "mismatched")
        if self.share > 1:
            raise ConfigError(f"share={self.share}: it is the part of all neurons that may move, at most 1")
        if self.positions not in get_args(Positions):
            raise ConfigError(f"positions={self.positions!r}: known are {', '.join(get_args(Positions))}")

    def apply(self, context: Context) -> Selected:
        """Score all neurons and free the best ones."""
        mlps = [MLP.of(block) for block in causal.decoder_blocks(context.model)]
        # 1. Score every neuron of every block; the best share of all of them may move.
        scores = self.scores(context, mlps)
        flat = torch.cat(scores)
        chosen = torch.zeros_like(flat)
        chosen[flat.topk(max(1, round(self.share * len(flat)))).indices] = 1
        parts = chosen.split([len(block_scores) for block_scores in scores])
        # 2. Masks of their rows and columns: AdamW moves nothing else.
        masks = {id(p): mask for mlp, part in zip(mlps, parts) if part.any() for p, mask in mlp.masks(part)}
        by_name = {name: masks[id(p)] for name, p in context.model.named_parameters() if id(p) in masks}
        return dataclasses.replace(only(context.model, by_name), masks=by_name)

    def scores(self, context: Context, mlps: Sequence[MLP]) -> list[Tensor]:
        """Return the contextual score of every neuron, Tensor[d_ff] a block."""
        rows = context.split[context.roles[0]].rows
        # a. Attribution with the context: the mean over the forget rows.
        contextual = self.attribution(context, mlps, rows, np.full(len(rows), 1 / len(rows)))
        # b. Superficial-knowledge regularisation: less what the answers light up under other questions.
        texts, weights = self.mismatches(context, rows)
        if not texts:
            return contextual
        superficial = self.attribution(context, mlps, texts, weights)
        return [c - self.regularisation * s for c, s in zip(contextual, superficial)]

    def mismatches(self, context: Context, rows: Sequence[Row]) -> tuple[list[Row], np.ndarray]:
        """Put every distinct answer behind questions with another answer about somebody else.

        Returns:
            The texts, and float64[n], the weight of each.
        """
        pool = [row for role in context.roles for row in context.split[role].rows if "question" in row]
        counts = collections.Counter(str(row["answer"]) for row in rows)
        rng = np.random.default_rng(context.seed)
        texts: list[Row] = []
        weights: list[float] = []
        for row in {str(row["answer"]): row for row in rows}.values():
            shuffled = (pool[i] for i in rng.permutation(len(pool)))
            mismatched = (candidate for candidate in shuffled if is_mismatch(candidate, row))
            picked = list(islice(mismatched, self.mismatched))
            texts += [{"question": mismatch["question"], "answer": row["answer"]} for mismatch in picked]
            weights += [counts[str(row["answer"])] / len(rows) / len(picked) for _ in picked]
        return texts, np.array(weights)

    def attribution(
        self, context: Context, mlps: Sequence[MLP], rows: Sequence[Row], weights: np.ndarray
    ) -> list[Tensor]:
        """Return Σ weight · A over texts, Tensor[d_ff] a block.

        It takes one forward and backward a text, to the activations alone. The backward is of log P, and A =
        P · h · ∂log P/∂h: that of P itself, where an answer has no chance, computes with numbers too small to
        be fast.
        """
        model, task = context.model.eval(), context.task
        data = task.encode(Split({"read": Role("read", rows)}), "read", ["answer"])
        work, _ = task.sizes(data, "answer")
        order = np.argsort(work, kind="stable")
        totals = [torch.zeros(mlp.width, device=mlp.down.weight.device) for mlp in mlps]
        with captured_neurons(mlps) as hidden:
            for batch in np.split(order, range(_BATCH, len(order), _BATCH)):
                # a. h and ∂log P/∂h at every position.
                view = task.forward(model, {"read": (data, batch)}, {"read": [ANSWER]})["read"]
                logprobs = view.read(ANSWER)
                gradients = torch.autograd.grad(logprobs.values.sum(), hidden)
                # b. A = P · h · ∂log P/∂h, reduced over positions and added up over texts.
                chances = logprobs.sum().detach().exp()
                weight = torch.from_numpy(weights[batch]).to(chances) * chances
                ends = torch.from_numpy(work[batch] - 1).to(logprobs.counts)
                for total, h, gradient in zip(totals, hidden, gradients):
                    products = causal.unpacked((h.detach() * gradient).float(), work[batch].tolist())
                    reduced = reduce_positions(products, ends, logprobs.counts, self.positions)
                    total += weight.to(reduced) @ reduced
        return totals


@dataclasses.dataclass(frozen=True)
class MLP:
    """The linear layers of a block's MLP.

    Args:
        ups: The layers into the neurons (a gate among them).
        down: The layer out of them.
        width: The number of neurons, d_ff.
    """

    ups: tuple[Any, ...]
    down: Any
    width: int

    @classmethod
    def of(cls, block: nn.Module) -> MLP:
        """Find the MLP of a block. Raises ModelError where it has not exactly one known down projection."""
        names = [name for name, _ in block.named_modules() if _DOWN_PROJECTION.search(name)]
        if len(names) != 1:
            raise ModelError(
                f"{type(block).__name__} has {len(names)} MLP output projections: "
                "knowledge neurons need exactly one a block"
            )
        down: Any = block.get_submodule(names[0])
        width = down.weight.shape[output_axis(down) - 1]
        siblings = block.get_submodule(names[0].rpartition(".")[0]).children()
        ups = [m for m in siblings if m is not down and getattr(m, "weight", torch.empty(0)).dim() == 2]
        return cls(tuple(ups), down, width)

    def masks(self, chosen: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Yield each weight of the chosen neurons with the mask of its entries; a fused gate repeats them.

        Args:
            chosen: Tensor[width] of 0 and 1.
        """
        for up in self.ups:
            rows = chosen.to(up.weight).repeat(up.weight.shape[output_axis(up)] // self.width)
            yield up.weight, (rows[:, None] if output_axis(up) == 0 else rows).expand_as(up.weight)
            if up.bias is not None:
                yield up.bias, rows
        columns = chosen.to(self.down.weight)
        columns = columns if output_axis(self.down) == 0 else columns[:, None]
        yield self.down.weight, columns.expand_as(self.down.weight)


def output_axis(linear: nn.Module) -> int:
    """Return 0 where the weight is [out, in]; 1 for the [in, out] of GPT-2's Conv1D."""
    return 0 if isinstance(linear, nn.Linear) else 1


def is_mismatch(candidate: Row, row: Row) -> bool:
    """Return whether a candidate has another answer and, as far as the rows say, another subject."""
    same_entity = row.get("entity") is not None and row.get("entity") == candidate.get("entity")
    return not same_entity and str(candidate["answer"]).casefold() != str(row["answer"]).casefold()


def reduce_positions(products: Tensor, ends: Tensor, counts: Tensor, positions: Positions) -> Tensor:
    """Reduce [B, T, d_ff] to [B, d_ff] over the positions that lead to the answer.

    Args:
        products: h · ∂log P/∂h at every position.
        ends: int64[B], how many positions lead to the answer's last token; later ones have no gradient.
        counts: int64[B], the answer's tokens.
        positions: How to reduce.
    """
    if positions == "mean":
        return products.sum(1) / ends[:, None]
    if positions == "last":
        return products[torch.arange(len(products), device=products.device), ends - counts]
    outside = torch.arange(products.shape[1], device=products.device) >= ends[:, None]
    return products.masked_fill(outside[..., None], -torch.inf).amax(1)


@contextlib.contextmanager
def captured_neurons(mlps: Sequence[MLP]) -> Iterator[list[Tensor]]:
    """Give the neurons of the latest forward, one Tensor[…, d_ff] a block, ready to be differentiated by."""
    hidden: list[Tensor] = [torch.empty(0)] * len(mlps)

    def capture(i: int) -> Any:
        def hook(module: nn.Module, inputs: Any) -> None:
            hidden[i] = inputs[0].requires_grad_()

        return hook

    hooks = [mlp.down.register_forward_pre_hook(capture(i)) for i, mlp in enumerate(mlps)]
    try:
        yield hidden
    finally:
        for hook in hooks:
            hook.remove()
