"""Chosen layers and modules."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from unremember.engine.seams import Context, Selected
from unremember.engine.selections import only
from unremember.errors import ConfigError
from unremember.models import causal
from unremember.registry import selections


@selections.register("layers", fidelity="code")
@dataclasses.dataclass(frozen=True)
class Layers:
    """Move the weights of some blocks, or those of them whose name matches a pattern.

    Args:
        layers: The numbers of the blocks (``[1, 2]``); negative ones count from the end.
        modules: A regular expression searched in the name inside the block: ``"mlp"``, ``"down_proj"``.
    """

    layers: Sequence[int] = (-1,)
    modules: str = ""

    def __post_init__(self) -> None:
        try:
            re.compile(self.modules)
        except re.error as error:
            raise ConfigError(f"modules={self.modules!r} is no regular expression: {error}") from error

    def apply(self, context: Context) -> Selected:
        """Free the weights that match. Raises ConfigError for an unknown block, or where none matches."""
        model = context.model
        blocks = causal.decoder_blocks(model)
        outside = [i for i in self.layers if not -len(blocks) <= i < len(blocks)]
        if outside:
            raise ConfigError(
                f"the model has {len(blocks)} blocks: layers {outside} are not among 0..{len(blocks) - 1}"
            )
        chosen = {id(blocks[i]) for i in self.layers}
        inside = {f"{name}." for name, module in model.named_modules() if id(module) in chosen}
        names = [
            name
            for name, _ in model.named_parameters()
            for prefix in inside
            if name.startswith(prefix) and re.search(self.modules, name[len(prefix) :])
        ]
        if not names:
            raise ConfigError(f"no weight of layers {list(self.layers)} matches {self.modules!r}")
        return only(model, names)
