"""unremember: take data out of a trained model and prove that it is gone.

>>> import unremember as un
>>> original = un.load("models/original")
>>> forgotten = un.forget(original, split, "npo")
>>> figures = un.audit(forgotten, split, original=original, oracle=un.load("models/oracle"))
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["Artefact", "attack", "audit", "forget", "load", "train", "untrained_model"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from unremember import api

        return getattr(api, name)
    raise AttributeError(f"module 'unremember' has no attribute {name!r}")
