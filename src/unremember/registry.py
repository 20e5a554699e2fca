"""One registry for each kind of part: methods, losses, observations, audits and others.

A part is a function or dataclass that is called to build it: ``npo(beta=0.1)``. A decorator registers it with
its paper and other facts. Everything that lists parts (terminal, documentation, README) reads these
registries.

A part is found in one of three places, in this order: the package's own folder for its kind, the entry points
``unremember.<kind>`` of installed packages, and an import path ``package.module:attribute``. What such a path
names must be registered as well: no other callable is ever called.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import inspect
import math
import pkgutil
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from unremember.errors import ConfigError, did_you_mean
from unremember.taxonomy import ELEMENT_BY_ID, Element, coverage

Part = TypeVar("Part", bound=Callable[..., Any])
FIDELITIES = ("code", "paper", "reconstruction", "own")
_STEP_COST = re.compile(r"(\d+) (?:partial )?forwards?(?:,| and) (?:(\d+) )?backwards?")


@dataclasses.dataclass(frozen=True)
class Entry:
    """What a registered part says about itself.

    Args:
        kind: The registry that holds it, such as ``methods``.
        name: Its name in that registry.
        make: The function or class that builds the part.
        summary: The first line of its docstring.
        paper: The paper's title; "" for a part of our own.
        arxiv: The paper's arXiv id.
        needs: The roles, columns and controls that it reads.
        fidelity: ``code`` (checked against the authors' code), ``paper`` (written from the paper's text),
            ``reconstruction`` (written from an abstract) or ``own``.
        taxonomy: An id of ``unremember.taxonomy``; "" for none.
        facts: Further facts of its kind, such as ``cost``.
    """

    kind: str
    name: str
    make: Callable[..., Any]
    summary: str
    paper: str = ""
    arxiv: str = ""
    needs: tuple[str, ...] = ()
    fidelity: str = "own"
    taxonomy: str = ""
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """Return the entry as a plain object, for ``--json`` and generated tables."""
        return {
            "name": self.name,
            "kind": self.kind,
            "summary": self.summary,
            "paper": self.paper,
            "arxiv": self.arxiv,
            "needs": list(self.needs),
            "fidelity": self.fidelity,
            "taxonomy": self.taxonomy,
            "parameters": {key: repr(value) for key, value in self.parameters().items()},
            **self.facts,
        }

    def parameters(self) -> dict[str, Any]:
        """Return the default of each argument that builds the part; ``Parameter.empty`` if it is required."""
        parameters = inspect.signature(self.make).parameters.values()
        return {p.name: p.default for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}

    @property
    def price(self) -> tuple[int, int] | None:
        """Return the forwards and backwards of an ordinary step; None if the ``cost`` does not state them.

        A stated cost begins as in ``2 forwards, 2 backwards; once …``.
        """
        cost = _STEP_COST.match(str(self.facts.get("cost", "")))
        return (int(cost[1]), int(cost[2] or cost[1])) if cost else None


class Registry:
    """The parts of one kind, by name.

    Args:
        kind: The plural name of the kind, which is also its group of entry points.
        packages: The packages whose modules register the built-in parts.
    """

    def __init__(self, kind: str, *packages: str) -> None:
        self.kind = kind
        self.noun = "loss" if kind == "losses" else kind.removesuffix("s")
        self.packages = packages
        self.entries: dict[str, Entry] = {}
        self.loaded = False

    def register(
        self,
        name: str,
        *,
        paper: str = "",
        arxiv: str = "",
        needs: tuple[str, ...] = (),
        fidelity: str = "own",
        taxonomy: str = "",
        **facts: Any,
    ) -> Callable[[Part], Part]:
        """Return a decorator that registers a part under ``name``, with the facts of ``Entry``.

        Raises:
            ConfigError: The fidelity or taxonomy id is unknown, the part has no docstring, or its name is
                taken.
        """
        if fidelity not in FIDELITIES:
            raise ConfigError(
                f"{self.kind} {name!r}: fidelity {fidelity!r} is not one of {', '.join(FIDELITIES)}"
            )
        if taxonomy and taxonomy not in ELEMENT_BY_ID:
            raise ConfigError(
                f"{self.kind} {name!r}: unknown taxonomy id {taxonomy!r}: "
                f"{did_you_mean(taxonomy, ELEMENT_BY_ID)}"
            )

        def add(make: Part) -> Part:
            doc = inspect.getdoc(make)
            if not doc:
                raise ConfigError(
                    f"{self.kind} {name!r} has no docstring: its first line is the summary in every list"
                )
            self._check_name_is_free(name, make)
            summary = doc.splitlines()[0]
            self.entries[name] = Entry(
                self.kind, name, make, summary, paper, arxiv, needs, fidelity, taxonomy, facts
            )
            return make

        return add

    def _check_name_is_free(self, name: str, make: Callable[..., Any]) -> None:
        """Raise ConfigError if another part has the name. A module that is imported twice registers again."""
        known = self.entries.get(name)
        if known is None:
            return
        if (known.make.__module__, known.make.__qualname__) != (make.__module__, make.__qualname__):
            raise ConfigError(
                f"two {self.kind} are called {name!r}: {known.make.__module__} and {make.__module__}"
            )

    def load(self) -> None:
        """Import every built-in part of this kind and every entry point of installed packages."""
        if self.loaded:
            return
        for package in self.packages:
            for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
                importlib.import_module(f"{package}.{module.name}")
        for point in importlib.metadata.entry_points(group=f"unremember.{self.kind}"):
            point.load()
        self.loaded = True

    def names(self) -> list[str]:
        """Return the names of all parts, sorted."""
        self.load()
        return sorted(self.entries)

    def all(self) -> list[Entry]:
        """Return the entries of all parts, sorted by name."""
        return [self.entries[name] for name in self.names()]

    def entry(self, name: str) -> Entry:
        """Return the entry called ``name``, or the one at the import path ``package.module:attribute``.

        Raises:
            ConfigError: There is no such part.
        """
        self.load()
        if name in self.entries:
            return self.entries[name]
        if ":" in name:
            return self._entry_at(name)
        raise ConfigError(f"unknown {self.noun} {name!r}: {did_you_mean(name, self.entries)}")

    def _entry_at(self, path: str) -> Entry:
        """Return the entry of an imported part. Raises ConfigError where it is not registered here."""
        module, _, attribute = path.partition(":")
        try:
            make = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(f"cannot import {self.noun} {path!r}: {error}") from error
        for entry in self.entries.values():
            if entry.make is make:
                return entry
        raise ConfigError(
            f"{path} is no registered {self.noun}: decorate it with @{self.kind}.register(name)"
        )

    def make(self, spec: Any) -> Any:
        """Build a part.

        Args:
            spec: ``"npo"``, ``{"name": "npo", "beta": 0.2}``, or a part that is already built and returned as
                it is.

        Raises:
            ConfigError: The part or a parameter is unknown, a value is missing, or it has the wrong type or
                range.
        """
        if isinstance(spec, str):
            spec = {"name": spec}
        if not isinstance(spec, Mapping):
            return spec
        arguments = dict(spec)
        if "name" not in arguments:
            raise ConfigError(f"a {self.noun} needs a name: {did_you_mean('', self.names())}")
        entry = self.entry(str(arguments.pop("name")))
        parameters = entry.parameters()
        for key in arguments:
            if key not in parameters:
                raise ConfigError(f"{entry.name} has no parameter {key!r}: {did_you_mean(key, parameters)}")
        required = [key for key, default in parameters.items() if default is inspect.Parameter.empty]
        if missing := [key for key in required if key not in arguments]:
            raise ConfigError(f"{entry.name} needs a value for {', '.join(missing)}")
        try:
            return entry.make(**_validated(entry.make, arguments))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{entry.name}: {error}") from error


def _validated(make: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments in their annotated types. Raises ConfigError for a value of another type."""
    import pydantic

    hints = typing.get_type_hints(make)
    validated = dict(arguments)
    for name in arguments.keys() & hints.keys():
        adapter = pydantic.TypeAdapter(hints[name], config={"arbitrary_types_allowed": True})
        try:
            validated[name] = adapter.validate_python(arguments[name])
        except pydantic.ValidationError as error:
            raise ConfigError(f"{name}: {error.errors()[0]['msg']}, not {arguments[name]!r}") from error
        value, default = validated[name], inspect.signature(make).parameters[name].default
        if isinstance(value, float) and value != default and not math.isfinite(value):
            raise ConfigError(f"{name}: a finite number is needed, not {arguments[name]!r}")
    return validated


tasks = Registry("tasks", "unremember.tasks")
methods = Registry("methods", "unremember.methods", "unremember.methods.language")
losses = Registry("losses", "unremember.engine.losses")
blends = Registry("blends", "unremember.engine.blends")
samplings = Registry("samplings", "unremember.engine.samplings")
selections = Registry("selections", "unremember.engine.selections")
observations = Registry("observations", "unremember.observe.kinds")
audits = Registry("audits", "unremember.audits")
attacks = Registry("attacks", "unremember.audits.attacks")
benchmarks = Registry("benchmarks", "unremember.benchmarks")
REGISTRIES = {
    registry.kind: registry
    for registry in (
        methods,
        losses,
        blends,
        samplings,
        selections,
        observations,
        audits,
        attacks,
        benchmarks,
        tasks,
    )
}
"""All registries by kind, in the order in which they are listed."""


def elements_with_parts() -> list[tuple[Element, tuple[str, ...]]]:
    """Return every element of the taxonomy with the names of the parts that carry its id; () if none does."""
    return coverage(
        (entry.taxonomy, entry.name)
        for registry in REGISTRIES.values()
        for entry in registry.all()
        if entry.taxonomy
    )
