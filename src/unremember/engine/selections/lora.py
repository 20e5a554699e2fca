"""Low-rank adapters through peft, merged into the weights at the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from unremember.engine.seams import Context, Selected
from unremember.registry import selections


@selections.register(
    "lora",
    paper="LoRA: Low-Rank Adaptation of Large Language Models",
    arxiv="2106.09685",
    taxonomy="architecture.adapters",
    fidelity="code",
)
@dataclasses.dataclass(frozen=True)
class LoRA:
    """Low-rank adapters on the linear layers (``targets``: all, or names of modules); the base is untouched."""

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    targets: str | Sequence[str] = "all-linear"

    def apply(self, context: Context) -> Selected:
        model = context.model
        from peft import LoraConfig, get_peft_model

        targets = self.targets if isinstance(self.targets, str) else list(self.targets)
        config = LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=targets
        )
        adapted = get_peft_model(model, config)
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        return Selected(parameters, lambda _: adapted.merge_and_unload())
