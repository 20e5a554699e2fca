"""Errors a user can act on: one line that says what is wrong and what to do."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable


class UnrememberError(Exception):
    """Base of every error that is shown to the user as one line, with exit code 2."""


class DataError(UnrememberError):
    """The data cannot be used: a column, a role or a text is missing or contradictory."""


class ModelError(UnrememberError):
    """A model folder or name cannot be loaded, or the model cannot do what it is asked to do."""


class ConfigError(UnrememberError):
    """A name, key or value of a configuration is unknown or out of range."""


class RunError(UnrememberError):
    """A run stopped: the disk is full, a checkpoint does not fit, or the loss is not finite."""


class Collapsed(RunError):
    """The loss is NaN or infinite. A benchmark records this as a result and goes on."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint for an unknown name: ``did you mean 'npo'? Known: dpo, npo``."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known: {', '.join(names) or 'none'}"


def require_positive(part: object, *names: str) -> None:
    """Raise ConfigError naming the first of a part's parameters that is not above 0."""
    for name in names:
        if not getattr(part, name) > 0:
            raise ConfigError(f"{name} must be above 0, not {getattr(part, name)}")


def printable(text: str) -> str:
    """Return text whose control codes and line breaks are visible escapes, such as ``\\x1b`` and ``\\n``."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def one_line(text: object) -> str:
    """Return a message as one printable line."""
    return printable(" ".join(str(text).split()))


def print_one_line_warnings() -> None:
    """Print this process's warnings as one line each, without the line of source that they come from."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        print(f"note: {one_line(message)}", file=sys.stderr)

    warnings.showwarning = show
