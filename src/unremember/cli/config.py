"""One configuration for YAML, flags and ``key=value``: the same names everywhere, unknown keys named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydantic
import yaml

from unremember.engine.settings import Settings
from unremember.errors import ConfigError, nearest

Spec = str | dict[str, Any]


class RunConfig(pydantic.BaseModel):
    """What a ``train`` or ``forget`` run is: the model, the data, the parts, and the settings of the loop."""

    model_config = pydantic.ConfigDict(extra="forbid")

    model: str = ""
    data: Spec = "people"
    method: Spec = "npo"
    blend: Spec | None = None
    sampling: Spec | None = None
    selection: Spec | None = None
    template: str = ""
    without: list[str] = []
    settings: dict[str, Any] = {}


SETTINGS = set(Settings.__dataclass_fields__)


def read_config(file: Path | None, flags: dict[str, Any], overrides: Sequence[str]) -> RunConfig:
    """The YAML file, then the flags that were given, then each ``key=value``; settings may stand at the top level.

    Raises ConfigError for an unknown key (with the nearest known one) and for a value of the wrong kind.
    """
    tree: dict[str, Any] = {}
    if file is not None:
        try:
            tree = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"cannot read {file}: {str(error).splitlines()[0]}") from error
    tree.update({key: value for key, value in flags.items() if value not in (None, [])})
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"{override!r} is not key=value")
        put(tree, key.split("."), yaml.safe_load(text))
    return checked(tree)


def put(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set a nested key; ``method.beta=0.2`` on ``method: npo`` makes it ``{name: npo, beta: 0.2}``."""
    for key in path[:-1]:
        if isinstance(tree.get(key), str):
            tree[key] = {"name": tree[key]}
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def checked(tree: dict[str, Any]) -> RunConfig:
    known = set(RunConfig.model_fields) | SETTINGS
    for key in tree:
        if key not in known:
            raise ConfigError(f"unknown key {key!r}: {nearest(key, known)}")
    settings = {**tree.pop("settings", {}), **{k: tree.pop(k) for k in list(tree) if k in SETTINGS}}
    for key, value in settings.items():
        if key not in SETTINGS:
            raise ConfigError(f"unknown setting {key!r}: {nearest(key, SETTINGS)}")
        default = Settings.__dataclass_fields__[key].default
        if isinstance(value, str) and not isinstance(default, str):
            try:
                settings[key] = int(value) if isinstance(default, int) else float(value)
            except ValueError as error:
                raise ConfigError(f"{key} is a number, not {value!r}") from error
    try:
        return RunConfig(**tree, settings=settings)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
