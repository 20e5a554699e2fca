"""The one training loop: draw, forward, blend, step — for every gradient method and every modality."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unremember import processes
from unremember.data.split import Split
from unremember.engine import checkpoint
from unremember.engine.job import count_rounds, prepare
from unremember.engine.log import StepLog
from unremember.engine.precision import single_precision
from unremember.engine.probe import GradientProbe
from unremember.engine.seams import MatchedForgetting, Phase, Seams
from unremember.engine.settings import Settings
from unremember.engine.sharded import hold_weights
from unremember.engine.stage import Stage
from unremember.engine.weights import Weights, join_processes
from unremember.errors import ConfigError
from unremember.models.causal import PACKED, attending
from unremember.processes import value_of_main_process
from unremember.progress import Progress
from unremember.tasks.protocol import Task

Watch = Callable[[Any, int], bool | None]


def run_recipe(
    model: Any,
    task: Task,
    split: Split,
    recipe: Seams,
    settings: Settings,
    folder: Path | None = None,
    watch: Watch | None = None,
    every: int = 0,
    quiet: bool = False,
) -> Any:
    """Run one gradient method on ``model``, in place: ``run_phases`` with a single phase."""
    return run_phases(model, task, split, (Phase(recipe),), 1, settings, folder, watch, every, quiet)


def run_phases(
    model: Any,
    task: Task,
    split: Split,
    phases: Sequence[Phase],
    rounds: int | None,
    settings: Settings,
    folder: Path | None = None,
    watch: Watch | None = None,
    every: int = 0,
    quiet: bool = False,
) -> Any:
    """Run phases in turn, ``rounds`` times, on ``model``, which is changed in place.

    All phases read the same frozen original: what ``model`` is when the run begins. Each keeps its own
    optimiser.

    Args:
        phases: Gradient methods, and how long each runs in a round.
        rounds: How often all phases are met; None: until the first phase took the steps that the settings
            say.
        folder: The run folder for ``log.jsonl`` and checkpoints; a run that was stopped carries on there, and
            its final weights equal an undisturbed run's bit for bit on CPU. None: nothing is kept.
        watch: ``watch(model, step)`` is called after ``every`` steps and at the end, and first where a
            stopped run carries on. Where it returns True, the run ends.
        every: Steps between two calls of ``watch``; 0: an epoch of the first phase.

    Returns:
        The model, in evaluation mode, with adapters merged.

    Raises:
        Collapsed: A loss or gradient is not finite; the last checkpoint stays.
        ConfigError: A part is unknown or cannot run here.
        DataError: A role or column is missing, or the folder holds another run's checkpoint.
    """
    torch.manual_seed(settings.seed)
    chosen = [phase.recipe.selection for phase in phases]
    with single_precision(model, chosen, settings.dtype), tempfile.TemporaryDirectory() as scratch:
        accelerator, home = join_processes(model), folder or value_of_main_process(Path(scratch))
        of_phases = [dataclasses.replace(settings, **phase.settings) for phase in phases]
        rounds = rounds or count_rounds(model, task, split, phases[0], of_phases[0])
        jobs = [
            prepare(model, task, split, phase, changed, home, rounds)
            for phase, changed in zip(phases, of_phases)
        ]
        processes.check_processes_agree([job.identity for job in jobs])
        torch.manual_seed(settings.seed)
        stages, movable = [], [p for p in model.parameters() if p.requires_grad]
        for job in jobs:
            for p in movable:  # no phase sees what an earlier one's selection froze
                p.requires_grad_(True)
            selected = job.selection.apply(job.context)
            stages.append(Stage(job, hold_weights(accelerator, model, selected), selected))
        check_phases(stages)
        try:
            run_stages(
                stages, phases, rounds, home, folder is not None, watch, every or jobs[0].per_epoch, quiet
            )
        finally:
            model.eval()
        for stage in stages:
            model = stage.selected.finish(model)
        return model


def check_phases(stages: Sequence[Stage]) -> None:
    """Raise ConfigError where a phase cannot share its weights with the others."""
    if len(stages) == 1:
        return
    if any(stage.weights.model is not stages[0].job.model for stage in stages):
        raise ConfigError(
            "phases share their weights, which FSDP cannot: run a method of several phases in one process"
        )
    names = {name for name, _ in stages[0].job.model.named_parameters()}
    if any(not names.issuperset(stage.weights.names) for stage in stages) or any(
        "lora_" in name for name in names
    ):
        raise ConfigError(
            "phases share their weights: none of them can add adapters; choose another selection"
        )


def run_stages(
    stages: Sequence[Stage],
    phases: Sequence[Phase],
    rounds: int,
    home: Path,
    keep: bool,
    watch: Watch | None,
    every: int,
    quiet: bool,
) -> None:
    """Take all steps of all rounds, from the last checkpoint on where there is one."""
    settings, weights = stages[0].job.settings, stages[0].weights
    if settings.gradient_checkpointing:
        checkpoint_blocks(weights)
    course = Course(stages, phases, rounds)
    logged = resume_phases(home / "checkpoint", stages, course) if keep else ""
    total = sum(stage.job.total for stage in stages)
    log = (
        StepLog(home / "log.jsonl", course.position, logged) if keep and processes.is_main_process() else None
    )
    saved = time.monotonic()

    def save() -> None:
        with undivided():
            save_phases(home / "checkpoint", stages, course, log.digest if log else "")

    def evaluate() -> None:
        if watch and (course.position % every == 0 or course.position == total):
            course.ended |= watcher_ends(watch, weights, course.position)

    if course.position and not course.finished:
        evaluate()  # a run that was stopped during an evaluation has not seen its result
    with Progress("training", total, start=course.position, quiet=quiet) as progress:
        try:
            while not course.finished:
                with undivided():
                    stage = course.stage
                    stage.refresh()
                    if stage.ended:
                        course.skip()
                        continue
                    with denormals_flushed():
                        figures, tokens = stage.step((settings.seed << 24) + course.position)
                    course.count_step()
                    if log:
                        phase = {"phase": stages.index(stage)} if len(stages) > 1 else {}
                        epoch = stage.position / stage.job.per_epoch
                        log.add({"step": course.position, "epoch": epoch, **phase, **figures})
                    progress.advance(1, tokens, " ".join(f"{k} {v:.3g}" for k, v in figures.items()))
                evaluate()
                if keep and processes.true_on_any_process(
                    time.monotonic() - saved > settings.checkpoint_seconds
                ):
                    save()
                    saved = time.monotonic()
        except (KeyboardInterrupt, SystemExit):
            if keep:
                save()
            raise
    if keep:
        save()
    with weights.whole_model():
        processes.wait_for_all_processes()


class Course:
    """Where a run is: which phase of which round, how many steps of it are taken, and how many in all."""

    def __init__(self, stages: Sequence[Stage], phases: Sequence[Phase], rounds: int) -> None:
        self.stages, self.phases, self.rounds = stages, phases, rounds
        self.position = self.round = self.phase = self.step = 0
        self.ended = False
        if len(stages) > 1:
            stages[0].freeze_others()

    @property
    def stage(self) -> Stage:
        """The phase whose turn it is."""
        return self.stages[self.phase]

    @property
    def finished(self) -> bool:
        """Whether the run is over: all rounds are done, or a watcher ended it."""
        return self.ended or self.round >= self.rounds

    def count_step(self) -> None:
        """Count a step of the current phase, and go on to the next phase where its turn is over."""
        self.position, self.step = self.position + 1, self.step + 1
        self.stage.position += 1
        if self.step >= self.stage.job.round_steps or self.stage.ended or self.matched():
            self.skip()

    def skip(self) -> None:
        """Go on to the next phase."""
        self.phase, self.step = self.phase + 1, 0
        if self.phase == len(self.stages):
            self.round, self.phase = self.round + 1, 0
        if len(self.stages) > 1 and not self.finished:
            self.stage.freeze_others()

    def matched(self) -> bool:
        """Whether the current phase has forgotten as much as it is to."""
        until, stage = self.phases[self.phase].until, self.stage
        if not isinstance(until, MatchedForgetting) or stage.position % (until.every or stage.job.per_epoch):
            return False
        with stage.weights.whole_model() as model:
            probe = GradientProbe(model, stage.job.task, stage.job.context.split)
            losses = probe.losses(until.role, np.arange(len(probe.split[until.role])))
        return value_of_main_process(bool(np.exp(-losses).mean() <= until.score))

    def tree(self) -> dict[str, Any]:
        """Return the course's part of a checkpoint."""
        return {name: getattr(self, name) for name in ("round", "phase", "step", "ended")}

    def restore(self, flat: Mapping[str, Any]) -> None:
        """Take over the course's part of a checkpoint."""
        self.round, self.phase, self.step = (int(flat[name]) for name in ("round", "phase", "step"))
        self.ended = bool(flat["ended"])
        if len(self.stages) > 1 and not self.finished:
            self.stage.freeze_others()


def watcher_ends(watch: Watch, weights: Weights, position: int) -> bool:
    """Return whether the watcher ends the run.

    Several processes hold Ctrl-C back meanwhile: they can only stop together.
    """
    several = processes.process_state().num_processes > 1
    with undivided() if several else contextlib.nullcontext(), weights.whole_model() as model:
        return value_of_main_process(bool(watch(model, position)))


def checkpoint_blocks(weights: Weights) -> None:
    """Let the model recompute its blocks in the backward pass, with the attention of packed rows."""
    contexts = {
        "use_reentrant": False,
        "context_fn": lambda: (contextlib.nullcontext(), attending(weights.model, PACKED)),
    }
    weights.model.gradient_checkpointing_enable(contexts)


@contextlib.contextmanager
def undivided() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back for the block and let them take effect at its end, on all processes.

    A step is then done or not begun, and no finaliser that runs within it swallows the signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: pending.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not None  # None: a handler that Python could not put back
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if processes.true_on_any_process(bool(pending)):
        signal.raise_signal(pending[0] if pending else signal.SIGINT)


@contextlib.contextmanager
def denormals_flushed() -> Iterator[None]:
    """Let a CPU take numbers below the least normal one (1e-38 in float32) for 0 within the block.

    They move no weight, and a model that gives an answer no chance is full of them, each a hundred times as
    slow.
    """
    before = torch.tensor(1e-310, dtype=torch.float64).mul(1.0).item() == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def save_phases(folder: Path, stages: Sequence[Stage], course: Course, logged: str) -> None:
    """Write a checkpoint of all phases.

    Args:
        logged: The digest of the log.
    """
    tree = {
        "log": logged,
        "position": course.position,
        "course": course.tree(),
        "buffers": buffers(stages[0].job.model),
        "phases": {str(i): stage.tree() for i, stage in enumerate(stages)},
    }
    if processes.is_main_process():
        checkpoint.save_checkpoint(folder, tree, course.position)


def resume_phases(folder: Path, stages: Sequence[Stage], course: Course) -> str:
    """Carry on from the newest checkpoint, where there is one, and return the digest of its log, else "".

    Raises DataError where another run wrote it.
    """
    flat = checkpoint.latest_checkpoint(folder)
    if flat is None:
        return ""
    for i, stage in enumerate(stages):
        stage.restore(checkpoint.entries_under(flat, f"phases/{i}"), folder)
    with torch.no_grad():
        for name, tensor in buffers(stages[0].job.model).items():
            tensor.copy_(flat[f"buffers/{name}"])
    course.position = int(flat["position"])
    course.restore(checkpoint.entries_under(flat, "course"))
    return str(flat.get("log", ""))


def buffers(model: Any) -> dict[str, torch.Tensor]:
    """Return what the model remembers beside its weights: running statistics."""
    weights = dict(model.named_parameters(remove_duplicate=False))
    return {name: tensor for name, tensor in model.state_dict().items() if name not in weights}
