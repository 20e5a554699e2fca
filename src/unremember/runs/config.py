"""One configuration for YAML, flags and ``key=value``, with the same names everywhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydantic
import yaml

from unremember import api
from unremember.engine.settings import Settings
from unremember.errors import ConfigError, did_you_mean
from unremember.methods.protocol import Method
from unremember.registry import REGISTRIES, methods
from unremember.tasks.text import Template

Spec = str | dict[str, Any]
"""A part by its name, or ``{"name": …, parameters}``."""
SETTINGS = frozenset(Settings.__dataclass_fields__)
_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
"""A number such as ``1e-4``, which YAML 1.1 reads as text."""
_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.\w+)*:[^\W\d][\w.]*")
"""``package.module:attribute``, which names a part outside the package."""
_LITERAL = ("model", "template")
"""The keys whose values are taken as they stand."""
_SEAMS = {"blend": "blends", "sampling": "samplings", "selection": "selections", "retain_loss": "losses"}
"""The registry of the part in each seam of a forget run."""
_UNUSED = {"train": ("blend", "sampling", "retain_loss"), "forget": ("without", "only")}
"""The keys that mean nothing to a kind of run."""


class RunConfig(pydantic.BaseModel):
    """What a ``train`` or ``forget`` run is: the model, the data, the parts, and the settings of the loop."""

    model_config = pydantic.ConfigDict(extra="forbid")

    model: str = ""
    data: Spec = "people"
    method: Spec = "npo"
    blend: Spec | None = None
    sampling: Spec | None = None
    selection: Spec | None = None
    retain_loss: Spec | None = None
    template: Spec = ""
    without: list[str] = []
    only: list[str] = []
    settings: Settings = Settings()

    @property
    def method_name(self) -> str:
        """The registered name or import path of the method."""
        return self.method if isinstance(self.method, str) else str(self.method.get("name", ""))


def read_config(
    file: Path | None, flags: dict[str, Any], overrides: Sequence[str], allowed: Sequence[str] = ()
) -> RunConfig:
    """Read the YAML file, then the flags that were given, then each ``key=value``; the later one wins.

    Settings may stand at the top level.

    Args:
        file: The YAML file; None for none.
        flags: Keys and values that were typed; empty ones do not count.
        overrides: Further ones, ``key=value`` each.
        allowed: The packages from which the file may name parts by import path.

    Raises:
        ConfigError: A key is unknown (the message names the nearest known one), a value is of the wrong kind,
            or the file names a part in a package that is not allowed.
    """
    return parse_config(read_tree(file, flags, overrides, allowed))


def read_tree(
    file: Path | None, flags: dict[str, Any], overrides: Sequence[str], allowed: Sequence[str] = ()
) -> dict[str, Any]:
    """Read the keys and values of a configuration without checking them; see ``read_config``."""
    tree = read_yaml(file) if file is not None else {}
    check_imports({key: value for key, value in tree.items() if key not in _LITERAL}, file, allowed)
    tree.update({key: value for key, value in flags.items() if value})
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"{override!r} is not key=value")
        set_key(tree, key.split("."), read_value(key, text))
    return dict(with_numbers(tree))


def read_value(key: str, text: str) -> Any:
    r"""Read a value as YAML; a model or template without quotes is literal, with ``\n`` for a line break."""
    if key in _LITERAL and text[:1] not in ("'", '"'):
        return text.replace("\\n", "\n")
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"cannot read the value of {key}: {text}") from error


def read_yaml(file: Path) -> dict[str, Any]:
    """Read a YAML file of keys and values. Raises ConfigError where it is not one."""
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {file}: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{file} holds a {type(tree).__name__}, not keys and values")
    return tree


def check_imports(tree: Any, file: Path | None, allowed: Sequence[str]) -> None:
    """Raise ConfigError where a file names a part by import path: importing it would run its package's code.

    Args:
        tree: What the file holds.
        allowed: The packages from which it may.
    """
    if isinstance(tree, dict | list):
        for value in tree.values() if isinstance(tree, dict) else tree:
            check_imports(value, file, allowed)
    elif isinstance(tree, str) and _IMPORT_PATH.fullmatch(tree):
        package = tree.partition(":")[0]
        if not any(f"{package}.".startswith(f"{name}.") for name in allowed):
            raise ConfigError(
                f"{file} names {tree}, whose import would run code: type it on the command line instead, or "
                f"give --allow-import {package.partition('.')[0]}"
            )


def part_parameters(keys: Sequence[str], name: str) -> tuple[dict[str, Any], list[str]]:
    """Return the values of the keys ``name.…=`` as a tree, and the remaining keys."""
    own = [key for key in keys if key.startswith(f"{name}.") and "=" in key]
    tree: dict[str, Any] = {name: {}}
    for key in own:
        path, _, text = key.partition("=")
        set_key(tree, path.split("."), read_value(path, text))
    return tree[name], [key for key in keys if key not in own]


def set_key(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set a nested key of a configuration.

    ``method.beta=0.2`` on ``method: npo`` (given, or the default) makes it ``{name: npo, beta: 0.2}``.
    """
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


def with_numbers(tree: Any) -> Any:
    """Return the tree with every text that is a number in exponent notation as that number."""
    if isinstance(tree, dict):
        return {key: with_numbers(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [with_numbers(value) for value in tree]
    return float(tree) if isinstance(tree, str) and _EXPONENT.fullmatch(tree) else tree


def parse_config(tree: dict[str, Any]) -> RunConfig:
    """Check keys and values. Raises ConfigError naming the first one that is wrong."""
    known = set(RunConfig.model_fields) | SETTINGS
    for key in tree:
        if key not in known:
            raise ConfigError(f"unknown key {key!r}: {did_you_mean(str(key), known)}")
    inner = tree.get("settings", {})
    if not isinstance(inner, dict):
        raise ConfigError(f"settings: {inner!r} is not keys and values")
    settings = {**inner, **{key: value for key, value in tree.items() if key in SETTINGS}}
    for key in settings:
        if key not in SETTINGS:
            raise ConfigError(f"unknown setting {key!r}: {did_you_mean(key, SETTINGS)}")
    parts = {key: value for key, value in tree.items() if key not in SETTINGS}
    try:
        return RunConfig.model_validate({**parts, "settings": settings})
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"] if part not in ("settings", "str"))
        raise ConfigError(f"{name}: {first['msg']}, not {first['input']!r}") from error


def measurement_config(data: Any, keys: Sequence[str]) -> RunConfig:
    """Read the data and the template of a measurement, which has no other keys.

    Raises:
        ConfigError: A key is neither ``data.…=`` nor ``template=``.
    """
    for key in keys:
        if key.split("=")[0].split(".")[0] not in ("data", "template"):
            raise ConfigError(f"only data.…= and template= can be given here, not {key!r}")
    config = read_config(None, {"data": data}, keys)
    Template.of(config.template)
    return config


def check_keys(config: RunConfig, kind: str) -> None:
    """Raise ConfigError for a template that cannot be filled and for keys that the kind of run ignores."""
    Template.of(config.template)
    for key in _UNUSED[kind]:
        if getattr(config, key):
            raise ConfigError(f"a {kind} run does not use {key}: leave it out")


def check_parts(config: RunConfig) -> None:
    """Raise ConfigError for a part that is unknown or does not take its parameters."""
    methods.make(config.method)
    for seam, kind in _SEAMS.items():
        if part := getattr(config, seam):
            REGISTRIES[kind].make(part)


def method_with_seams(config: RunConfig) -> Method:
    """Build the method of a configuration with its parts in place, before anything is loaded.

    Raises:
        ConfigError: A part is unknown, does not take its parameters, or stands in a seam that the method owns
            or lacks.
    """
    check_parts(config)
    return api.method_of(config.method, **{seam: getattr(config, seam) for seam in _SEAMS})
