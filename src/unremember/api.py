"""The Python face: forget, train, audit and attack in a few lines."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unremember.audits.attacks import AttackPoint, Subject
from unremember.audits.controls import Controls, default_audits, requests_of
from unremember.audits.measurement import Measurement
from unremember.data.split import Split, make_split, with_train_role
from unremember.engine.recipe import Recipe
from unremember.engine.seams import Term
from unremember.engine.settings import Run, Settings
from unremember.errors import ConfigError, DataError
from unremember.methods.protocol import Method
from unremember.observe.records import Observations
from unremember.observe.store import Store
from unremember.plan.lacks import missing_requirements
from unremember.progress import Progress
from unremember.registry import attacks, methods
from unremember.registry import audits as audit_registry
from unremember.tasks.artefact import Artefact, Interface, check_comparable, load_artefact
from unremember.tasks.untrained import untrained_model  # noqa: F401 (part of the Python face)

ATTACKED = ("probability", "extraction_strength")
"""What an attack measures where nothing is named: one scoring pass over the forget answers."""


def load(model: Any, tokenizer: Any = None, template: str | Mapping[str, Any] | None = None) -> Artefact:
    """Return an artefact: a model with its task.

    Args:
        model: A model folder, a hub name, a causal language model of transformers, or an Artefact (returned
            as it is).
        tokenizer: The tokenizer of a model that is given as an object.
        template: The prompt template: a format string over ``{question}``, or ``"chat"``; None: the stored or
            default one.

    Raises:
        ConfigError: A model was given as an object without its tokenizer.
        ModelError: The folder or hub name holds no model that can be loaded.
    """
    if isinstance(model, Artefact):
        return model
    if isinstance(model, str | Path):
        return load_artefact(model, template)
    if tokenizer is None:
        raise ConfigError(
            "a model by itself does not say how it is used: give tokenizer=… for a language model, "
            "or an Artefact(model, task) for any other, such as Artefact(model, ImageTask())"
        )
    from unremember.tasks.language import LanguageTask

    return Artefact(model, LanguageTask.of(model, tokenizer, template))


def method_of(
    method: Any,
    *,
    blend: Any = None,
    sampling: Any = None,
    selection: Any = None,
    retain_loss: Any = None,
) -> Method:
    """Build a method with other parts in some of its seams.

    Args:
        method: A registered name, ``{"name": …, parameters}``, or a built method.
        blend: The blend in place of the method's own; so are the other arguments.
        retain_loss: The loss of the retain terms.

    Raises:
        ConfigError: A name or parameter is unknown, or the method owns or lacks the seam.
    """
    built: Method = methods.make(method)
    return built.override(blend=blend, sampling=sampling, selection=selection, retain_loss=retain_loss)


def forget(
    model: Any,
    split: Mapping[str, Any] | Split,
    method: Any = "npo",
    *,
    tokenizer: Any = None,
    template: str | Mapping[str, Any] | None = None,
    blend: Any = None,
    sampling: Any = None,
    selection: Any = None,
    retain_loss: Any = None,
    folder: Path | None = None,
    watch: Any = None,
    every: int = 0,
    inplace: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> Artefact:
    """Forget ``split["forget"]`` and return the artefact that forgot; the given model is left as it is.

    Args:
        model: An Artefact, a model folder, a hub name, or a language model together with its ``tokenizer``.
        split: Rows by role (forget, retain, holdout …), or a Split.
        method: A registered name, ``{"name": …, parameters}``, or a method of your own.
        blend: The blend in place of the method's own; so are ``sampling``, ``selection`` and ``retain_loss``.
        folder: Where log and checkpoints are kept: the same call carries on a run that was stopped.
        watch: ``watch(model, step)`` is called after ``every`` steps (0: every epoch) and ends the run by
            returning True.
        inplace: Change the given model instead of a copy: one model less in memory, and the original is gone.
        settings: The fields of ``unremember.engine.settings.Settings``, such as ``lr`` and ``epochs``.

    Raises:
        ConfigError: A part is unknown, or stands in a seam that the method owns or lacks.
        DataError: The split lacks what the method reads.
        Collapsed: The loss is not finite.
    """
    start, rows = load(model, tokenizer, template), make_split(split)
    chosen = method_of(method, blend=blend, sampling=sampling, selection=selection, retain_loss=retain_loss)
    check_needs(chosen, rows, start.model)
    run = Run(Settings(**settings), folder, watch, every, quiet)
    return chosen.run(start if inplace else start.copy(), rows, run)


def check_needs(method: Method, split: Split, model: Any) -> None:
    """Raise DataError where something that a method reads is missing, with how to make it."""
    if lacks := missing_requirements(method, split, model):
        raise DataError(f"the method needs what {split.name} lacks: {'; '.join(lacks)}")


def train(
    model: Any,
    split: Mapping[str, Any] | Split,
    *,
    tokenizer: Any = None,
    template: str | Mapping[str, Any] | None = None,
    without: Sequence[str] = (),
    only: Sequence[str] = (),
    selection: Any = "all",
    folder: Path | None = None,
    inplace: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> Artefact:
    """Train on everything in the split and return the result; the given model is left as it is.

    Args:
        without: Roles that are left out: ``("forget",)`` makes the retrained oracle.
        only: Roles that are learned in place of all.
        selection: The weights that learn.

    The other arguments are those of ``forget``.
    """
    start, rows = load(model, tokenizer, template), with_train_role(make_split(split), without, only)
    recipe = Recipe(terms=(Term("train"),), selection=selection)
    run = Run(Settings(**settings), folder, quiet=quiet)
    return recipe.run(start if inplace else start.copy(), rows, run)


def audit(
    artefact: Artefact,
    split: Mapping[str, Any] | Split,
    *,
    oracle: Artefact | Sequence[Artefact] = (),
    original: Artefact | None = None,
    audits: Sequence[Any] = (),
    store: Path | None = None,
    quiet: bool = False,
) -> list[Measurement]:
    """Measure an artefact and read every figure against its controls.

    Args:
        artefact: What is measured.
        oracle: The models retrained without the forget set; without one, every forgetting figure is
            *undetermined*.
        original: The model before forgetting.
        audits: Names, ``{"name": …, parameters}`` or built audits; none named: all that apply to the split.
        store: Folder of the observations, kept by digest.

    Raises:
        ConfigError: No audit applies to the split, or a control has another tokenizer, prompt template or
            architecture than the artefact.
        ModelError: An artefact changed since its digest was taken.
    """
    rows = make_split(split)
    check_comparable(interfaces_of(artefact, oracle, original))
    chosen = chosen_audits(audits, rows)
    requests = requests_of(chosen, rows)
    observations = Store(store)

    def observe(artefact: Artefact) -> Observations:
        return observations.observe(artefact, rows, requests, quiet)

    retrained = [observe(control) for control in as_list(oracle)]
    before = observe(original) if original else None
    return Controls(chosen, before, retrained).card(observe(artefact))


def chosen_audits(audits: Sequence[Any], split: Split) -> list[Any]:
    """Build the named audits, or all that apply to a split. Raises ConfigError where none does."""
    chosen = [audit_registry.make(audit) for audit in audits] or default_audits(split)
    if not requests_of(chosen, split):
        raise ConfigError(f"no audit applies to {split.name}: it has the roles {', '.join(split.roles)}")
    return chosen


@dataclasses.dataclass(frozen=True)
class RecoveryPoint:
    """What an attack recovers at one point of its budget, against the controls under the same attack."""

    amount: float
    measurements: list[Measurement]


def attack(
    artefact: Artefact,
    split: Mapping[str, Any] | Split,
    attack: Any,
    *,
    oracle: Artefact | Sequence[Artefact] = (),
    original: Artefact | None = None,
    audits: Sequence[Any] = ATTACKED,
    store: Path | None = None,
    quiet: bool = False,
) -> list[RecoveryPoint]:
    """Attack an artefact, its oracles and its original alike, and measure each along the budget.

    None of the models is changed. A measurement's ``position`` is the recovered share: 0 where the attack
    recovers no more than it does of the oracle, 1 where it recovers what it does of the original.
    """
    check_comparable(interfaces_of(artefact, oracle, original))
    rows, attacker, observations = make_split(split), attacks.make(attack), Store(store)
    chosen = [audit_registry.make(audit) for audit in audits]
    attacked = [artefact, *as_list(oracle), *([original] if original else [])]
    curves: list[list[tuple[float, Observations]]] = []
    with Progress("attacking", len(attacked), quiet=quiet) as progress:
        for subject in attacked:
            curve: list[tuple[float, Observations]] = []

            def observe(point: AttackPoint, curve: list[tuple[float, Observations]] = curve) -> None:
                requests = requests_of(chosen, point.split)
                observed = observations.observe(point.artefact, point.split, requests, quiet=True)
                curve.append((point.amount, observed))

            attacker.run(Subject(subject, rows, original or subject), observe)
            curves.append(curve)
            progress.advance(1, 0)
    recognise = artefact.weights in {control.weights for control in attacked[1:]}
    points = []
    for (amount, observed), *control_points in zip(*curves, strict=True):
        beside = [control for _, control in control_points]
        retrained, before = (beside[:-1], beside[-1]) if original else (beside, None)
        card = Controls(chosen, before, retrained).card(observed, recognise)
        points.append(RecoveryPoint(amount, card))
    return points


def interfaces_of(
    artefact: Artefact, oracle: Artefact | Sequence[Artefact], original: Artefact | None
) -> dict[str, Interface]:
    """Return the interfaces of an artefact and its controls, by what to call each."""
    controls = {f"oracle {i}": control for i, control in enumerate(as_list(oracle), 1)}
    named = {"the artefact": artefact, **controls, **({"the original": original} if original else {})}
    return {name: Interface.of(each) for name, each in named.items()}


def as_list(oracle: Artefact | Sequence[Artefact]) -> list[Artefact]:
    """Return oracles as a list, however many were given."""
    return [oracle] if isinstance(oracle, Artefact) else list(oracle)


def versions() -> dict[str, str]:
    """Return the versions of the interpreter and of the libraries that decide a run's numbers."""
    import torch
    import transformers

    import unremember

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "unremember": unremember.__version__,
    }
