"""One configuration for YAML, flags and ``key=value``: the same names everywhere, unknown keys named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydantic
import yaml

from unremember.engine.settings import Settings
from unremember.errors import ConfigError, nearest

Spec = str | dict[str, Any]
EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
"""A number as ``1e-4``, which YAML 1.1 takes for text."""


class RunConfig(pydantic.BaseModel):
    """What a ``train`` or ``forget`` run is: the model, the data, the parts, and the settings of the loop."""

    model_config = pydantic.ConfigDict(extra="forbid")

    model: str = ""
    data: Spec = "people"
    method: Spec = "npo"
    blend: Spec | None = None
    sampling: Spec | None = None
    selection: Spec | None = None
    retain: Spec | None = None
    template: str = ""
    without: list[str] = []
    only: list[str] = []
    settings: Settings = Settings()


SETTINGS = set(Settings.__dataclass_fields__)


def read_config(file: Path | None, flags: dict[str, Any], overrides: Sequence[str]) -> RunConfig:
    """The YAML file, then the flags that were given, then each ``key=value``; settings may stand at the top level.

    Raises ConfigError for an unknown key (with the nearest known one) and for a value of the wrong kind.
    """
    return checked(read_tree(file, flags, overrides))


def read_tree(file: Path | None, flags: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The keys and values of a configuration, not yet checked."""
    tree = read_yaml(file) if file is not None else {}
    tree.update({key: value for key, value in flags.items() if value})
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"{override!r} is not key=value")
        put(tree, key.split("."), read_value(key, text))
    return dict(numbered(tree))


def read_value(key: str, text: str) -> Any:
    r"""A value as YAML has it; a model or a template that is not quoted is taken as it stands, ``\n`` for a line break."""
    if key in ("model", "template") and text[:1] not in ("'", '"'):
        return text.replace("\\n", "\n")
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"cannot read the value of {key}: {text}") from error


def read_yaml(file: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {file}: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{file} holds a {type(tree).__name__}, not keys and values")
    return tree


def taken(keys: Sequence[str], name: str) -> tuple[dict[str, Any], list[str]]:
    """(the values of the keys ``name.…=``, the other keys)."""
    mine = [key for key in keys if key.startswith(f"{name}.") and "=" in key]
    tree: dict[str, Any] = {name: {}}
    for key in mine:
        path, _, text = key.partition("=")
        put(tree, path.split("."), read_value(path, text))
    return tree[name], [key for key in keys if key not in mine]


def put(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set a nested key; ``method.beta=0.2`` on ``method: npo`` (given, or the default) makes it ``{name: npo, beta: 0.2}``."""
    for depth, key in enumerate(path[:-1]):
        inner = tree.get(key)
        if inner is None and depth == 0 and key in RunConfig.model_fields:
            inner = RunConfig.model_fields[key].default
        if isinstance(inner, str) and inner:
            inner = {"name": inner}
        if key in tree and not isinstance(inner, dict):
            raise ConfigError(f"{'.'.join(path)}: {key} is {inner!r} and has no parts")
        tree[key] = inner if isinstance(inner, dict) else {}
        tree = tree[key]
    tree[path[-1]] = value


def numbered(tree: Any) -> Any:
    """The tree with every text that is a number made one."""
    if isinstance(tree, dict):
        return {key: numbered(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [numbered(value) for value in tree]
    return float(tree) if isinstance(tree, str) and EXPONENT.fullmatch(tree) else tree


def checked(tree: dict[str, Any]) -> RunConfig:
    known = set(RunConfig.model_fields) | SETTINGS
    for key in tree:
        if key not in known:
            raise ConfigError(f"unknown key {key!r}: {nearest(str(key), known)}")
    inner = tree.pop("settings", {})
    if not isinstance(inner, dict):
        raise ConfigError(f"settings: {inner!r} is not keys and values")
    settings = {**inner, **{k: tree.pop(k) for k in list(tree) if k in SETTINGS}}
    for key in settings:
        if key not in SETTINGS:
            raise ConfigError(f"unknown setting {key!r}: {nearest(str(key), SETTINGS)}")
    try:
        return RunConfig.model_validate({**tree, "settings": settings})
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"] if part not in ("settings", "str"))
        raise ConfigError(f"{name}: {first['msg']}, not {first['input']!r}") from error
