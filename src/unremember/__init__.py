"""unremember: take data out of a trained model and prove that it is gone.

>>> import unremember as un
>>> result = un.forget(model, split, method="npo", tokenizer=tokenizer)
>>> card = un.audit(result, split, oracle=oracle, original=original)
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["Artefact", "attack", "audit", "forget", "load", "train"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from unremember import api

        return getattr(api, name)
    raise AttributeError(f"module 'unremember' has no attribute {name!r}")
