"""Low-rank adapters through peft, merged into the weights at the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch import nn

from unremember.engine.seams import Context, Selected
from unremember.errors import ConfigError, ModelError, require_positive
from unremember.registry import selections

_FUSED = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
"""Architectures whose kernels read the weight of the output projection by themselves."""


@selections.register(
    "lora",
    paper="LoRA: Low-Rank Adaptation of Large Language Models",
    arxiv="2106.09685",
    taxonomy="architecture.adapters",
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class LoRA:
    """Train low-rank adapters on the linear layers, and merge them into the weights at the end.

    Args:
        rank: The rank r of each adapter, above 0.
        alpha: An adapter's output is scaled by alpha / rank; above 0.
        dropout: Dropout on the adapters' input, a probability.
        targets: ``all-linear``, or the names of the modules that get an adapter.
        keep: Leave the adapters in the model instead of merging them: the weights below stay bit for bit.
            Such a model runs and can be audited, but it cannot be saved as a model folder.
    """

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    targets: str | Sequence[str] = "all-linear"
    keep: bool = False

    def __post_init__(self) -> None:
        require_positive(self, "rank", "alpha")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout={self.dropout}: a probability from 0 to below 1")

    def apply(self, context: Context) -> Selected:
        """Add the adapters.

        Raises:
            ConfigError: No module of the model is a target, or one cannot be adapted.
            ModelError: There are adapters already: they would be drawn anew.
        """
        model = context.model
        if hasattr(model, "peft_config"):
            raise ModelError(
                "adapters are still in the model: choose another selection, "
                "or run the earlier one with keep=false"
            )
        from peft import LoraConfig, get_peft_model

        targets = self.targets if isinstance(self.targets, str) else list(self.targets)
        excluded = linears_without_adapters(model) if targets == "all-linear" else []
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=targets,
            exclude_modules=excluded or None,
        )
        try:
            adapted = get_peft_model(model, config)
        except ValueError as error:
            raise ConfigError(f"targets={self.targets!r}: {error}") from error
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}

        def finish(trained: Any) -> Any:
            return trained if self.keep else adapted.merge_and_unload()

        return Selected(parameters, finish)


def linears_without_adapters(model: Any) -> list[str]:
    """Return the names of linear layers that low-rank adapters cannot wrap.

    Those are routers that return more than a product, and projections that fused kernels read past the layer.
    """
    kind = getattr(getattr(model, "config", None), "model_type", None)
    fused = (".out_proj",) if kind in _FUSED else ()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and (name.endswith(fused) or "Router" in type(module).__name__)
    ]
