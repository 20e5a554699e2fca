"""One registry for each kind of part: methods, losses, blends, samplings, selections, observations, audits …

A part is a function or a dataclass whose call makes it: ``npo(beta=0.1)``. It registers itself with a decorator
that states its paper; everything that lists parts (terminal, docs, README) reads this registry.

Three places are looked in, in this order: the package's own folder of that kind, the entry points
``unremember.<kind>`` of installed packages, and an import path ``package.module:attribute``.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import inspect
import pkgutil
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from unremember.errors import ConfigError, nearest
from unremember.taxonomy import IDS, Element, coverage

Part = TypeVar("Part", bound=Callable[..., Any])
FIDELITIES = ("code", "paper", "reconstruction", "own")


@dataclasses.dataclass(frozen=True)
class Entry:
    """What a registered part says about itself.

    ``needs`` names roles, texts and access that must be there; ``fidelity`` is ``code`` (checked against the authors' code),
    ``paper`` (from the paper's text), ``reconstruction`` (from an abstract) or ``own``; ``taxonomy`` is an id of
    :mod:`unremember.taxonomy`.
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
        """The entry as a plain object for ``--json`` and generated tables."""
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
        """Names and defaults of the arguments that make the part."""
        found = inspect.signature(self.make).parameters.values()
        return {p.name: p.default for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}

    @property
    def price(self) -> tuple[int, int] | None:
        """Forwards and backwards of an ordinary step, where ``cost`` states them: ``2 forwards, 2 backwards; once …``."""
        found = re.match(
            r"(\d+) (?:partial )?forwards?(?:,| and) (?:(\d+) )?backwards?", str(self.facts.get("cost", ""))
        )
        return (int(found[1]), int(found[2] or found[1])) if found else None


class Registry:
    """The parts of one kind, found by name."""

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
        """Decorator: file ``make`` under ``name``; its docstring's first line is the summary."""
        if fidelity not in FIDELITIES:
            raise ConfigError(
                f"{self.kind} {name!r}: fidelity {fidelity!r} is not one of {', '.join(FIDELITIES)}"
            )
        if taxonomy and taxonomy not in IDS:
            raise ConfigError(
                f"{self.kind} {name!r}: unknown taxonomy id {taxonomy!r}: {nearest(taxonomy, IDS)}"
            )

        def add(make: Part) -> Part:
            doc = inspect.getdoc(make)
            if not doc:
                raise ConfigError(
                    f"{self.kind} {name!r} has no docstring: its first line is the summary in every list"
                )
            known = self.entries.get(name)
            if known is not None and (known.make.__module__, known.make.__qualname__) != (
                make.__module__,
                make.__qualname__,
            ):
                raise ConfigError(
                    f"two {self.kind} are called {name!r}: {known.make.__module__} and {make.__module__}"
                )
            summary = doc.splitlines()[0]
            self.entries[name] = Entry(
                self.kind, name, make, summary, paper, arxiv, needs, fidelity, taxonomy, facts
            )
            return make

        return add

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
        self.load()
        return sorted(self.entries)

    def all(self) -> list[Entry]:
        return [self.entries[name] for name in self.names()]

    def entry(self, name: str) -> Entry:
        """The entry called ``name``, or the one at the import path ``package.module:attribute``."""
        self.load()
        if name in self.entries:
            return self.entries[name]
        if ":" in name:
            return self.imported(name)
        raise ConfigError(f"unknown {self.noun} {name!r}: {nearest(name, self.entries)}")

    def imported(self, path: str) -> Entry:
        module, _, attribute = path.partition(":")
        try:
            make = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"cannot import {self.noun} {path!r}: {error}") from error
        for entry in self.entries.values():
            if entry.make is make:
                return entry
        return Entry(self.kind, path, make, (inspect.getdoc(make) or path).splitlines()[0])

    def make(self, spec: Any) -> Any:
        """Build a part from ``"npo"``, ``{"name": "npo", "beta": 0.2}`` or an already built part."""
        if isinstance(spec, str):
            spec = {"name": spec}
        if not isinstance(spec, Mapping):
            return spec
        arguments = dict(spec)
        if "name" not in arguments:
            raise ConfigError(f"a {self.noun} needs a name: {nearest('', self.names())}")
        entry = self.entry(str(arguments.pop("name")))
        known = entry.parameters()
        for key in arguments:
            if key not in known:
                raise ConfigError(f"{entry.name} has no parameter {key!r}: {nearest(key, known)}")
        missing = [
            key
            for key, default in known.items()
            if default is inspect.Parameter.empty and key not in arguments
        ]
        if missing:
            raise ConfigError(f"{entry.name} needs a value for {', '.join(missing)}")
        try:
            return entry.make(**typed(entry.make, arguments))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{entry.name}: {error}") from error


def typed(make: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, each checked against its annotation. Raises ConfigError for a value of the wrong kind."""
    import pydantic

    hints = typing.get_type_hints(make)
    out = dict(arguments)
    for name in arguments.keys() & hints.keys():
        try:
            out[name] = pydantic.TypeAdapter(
                hints[name], config={"arbitrary_types_allowed": True}
            ).validate_python(arguments[name])
        except pydantic.ValidationError as error:
            raise ConfigError(f"{name}: {error.errors()[0]['msg']}, not {arguments[name]!r}") from error
    return out


tasks = Registry("tasks", "unremember.tasks")
methods = Registry("methods", "unremember.methods", "unremember.methods.language")
losses = Registry("losses", "unremember.engine.losses")
blends = Registry("blends", "unremember.engine.blends")
samplings = Registry("samplings", "unremember.engine.samplings")
selections = Registry("selections", "unremember.engine.selections")
observations = Registry("observations", "unremember.observe.kinds")
audits = Registry("audits", "unremember.audits")
benchmarks = Registry("benchmarks", "unremember.benchmarks")
attacks = Registry("attacks", "unremember.audits.attacks")
ALL = {
    r.kind: r
    for r in (
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


def covered() -> list[tuple[Element, tuple[str, ...]]]:
    """Every element of the taxonomy with the parts that carry its id; none where nothing does yet."""
    return coverage(
        (entry.taxonomy, entry.name)
        for registry in ALL.values()
        for entry in registry.all()
        if entry.taxonomy
    )
