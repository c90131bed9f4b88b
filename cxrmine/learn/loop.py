"""The training loop: it runs a recipe's phases on any objective, and goes on exactly where it was stopped.

An objective is a module whose forward(images, labels) returns a dictionary with "loss". Everything random is a function
of the seed and of where we are (epoch, step, row), so a step mark holds weights and optimizer, and no generator.
"""

import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from cxrmine.config import Phase, Recipe, Step
from cxrmine.console import Progress
from cxrmine.errors import CxrError, Stopped
from cxrmine.learn.augment import apply, draw
from cxrmine.learn.checkpoint import load_state, save_state
from cxrmine.learn.guides import Guide
from cxrmine.learn.loader import Batch, steps_an_epoch
from cxrmine.learn.parallel import any_process
from cxrmine.runs import Metrics, RunFolder

LOG_EVERY = 50  # steps


class Course(Protocol):
    """What the loop asks of a run."""

    def begin(self, step: Step) -> tuple[str, ...] | None:
        """Called before a phase, also when a run goes on in the middle of one. → the parts that it does not use; None:
        there is nothing left to learn, in this phase or after it."""
        ...

    def films_of(self, step: Step) -> int:
        """How many films an epoch of this phase has."""
        ...

    def batches(self, step: Step, epoch: int, first: int) -> Iterator[tuple[Batch, Tensor, Guide | None]]:
        """The films and targets of an epoch from its step `first` on."""
        ...

    def validate(self) -> dict[str, Any]:
        """{"val_loss": …, …}"""
        ...

    def end(self, step: Step) -> None:
        """Called after a phase; again, where a run was stopped just then."""
        ...


@dataclass
class Position:
    """Where a run is. Saved with every step mark."""

    phase: int = 0
    epoch: int = 0  # of the phase
    step: int = 0  # of the epoch
    steps_done: int = 0  # of the run
    epochs_done: int = 0
    best_loss: float = math.inf  # of the phase
    epochs_since_best: int = 0


class Loop:
    def __init__(
        self,
        objective: nn.Module,
        recipe: Recipe,
        course: Course,
        folder: RunFolder,
        world: Accelerator,
        bar: Progress,
    ) -> None:
        self.objective, self.recipe, self.course = objective, recipe, course
        self.folder, self.world, self.bar = folder, world, bar
        self.saved = load_state(folder)
        self.at = Position(**self.saved["position"]) if self.saved else Position()
        self.metrics = Metrics(folder, self.saved["metrics_length"] if self.saved else 0, world.is_main_process)
        if self.saved:
            objective.load_state_dict(self.saved["model"])
            bar.resume_at(self.at.steps_done)

    def run(self) -> None:
        """Every phase to its end, from the last step mark on."""
        at = self.at
        with stop_signals() as self.stop:
            for step in self.recipe.schedule[at.phase :]:
                phase = step.phase
                unused = self.course.begin(step)
                if unused is None:
                    break
                self._start(step, unused)
                while at.epoch < phase.epochs and not _is_level(phase, at):
                    for batch, labels, guide in self.course.batches(step, at.epochs_done, at.step):
                        parts = self._step(phase, batch, labels, guide)
                        self._count(phase, parts)
                    self._finish_epoch(phase)
                self.course.end(step)
                at.phase, at.epoch, at.best_loss, at.epochs_since_best = at.phase + 1, 0, math.inf, 0

    def _start(self, step: Step, unused: tuple[str, ...]) -> None:
        phase = step.phase
        self.frozen = (*phase.frozen, *unused)
        self.steps_an_epoch = steps_an_epoch(self.course.films_of(step), self.recipe.train.batch_size)
        for name, parameter in self.objective.named_parameters():
            parameter.requires_grad_(not name.startswith(self.frozen))
        self.model = self.objective
        if self.world.num_processes > 1:
            self.model = self.world.prepare_model(self.objective)
        else:
            self.objective.to(self.world.device)
        self.objective.zero_grad(set_to_none=True)  # what the phase before left must not count in this one's norm
        self.learning = [p for p in self.objective.parameters() if p.requires_grad]
        if not self.learning:
            raise CxrError(f"Phase {phase.name} freezes everything.", "Take something out of its key frozen.")
        self.optimizer = make_optimizer(self.learning, self.recipe, phase)
        if self.saved:
            self.optimizer.load_state_dict(self.saved["optimizer"])
            self.saved = None

    def _step(self, phase: Phase, batch: Batch, labels: Tensor, guide: Guide | None) -> dict[str, Tensor]:
        at, train = self.at, self.recipe.train
        torch.manual_seed((train.seed << 32) + at.steps_done)  # dropout
        done = (at.epoch * self.steps_an_epoch + at.step) / (phase.epochs * self.steps_an_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate(phase, at.epoch, done)
        set_mode(self.objective, self.frozen)
        matrices, contrasts = draw(self.recipe.augment, train.seed, at.epochs_done, batch.rows)
        device = self.world.device
        images = apply(batch.images.to(device), matrices.to(device), contrasts.to(device))
        laid = [part.to(device) for part in guide.moved(matrices, self.recipe.data.size)] if guide else []
        with self.world.autocast():
            parts: dict[str, Tensor] = self.model(images, labels.to(device), *laid)
        loss = parts["loss"]
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if train.clip:
            nn.utils.clip_grad_norm_(self.learning, train.clip)
        self.optimizer.step()
        return {name: value.detach() for name, value in parts.items() if value.ndim == 0}

    def _count(self, phase: Phase, parts: dict[str, Tensor]) -> None:
        """After a step: say where we are, leave a mark when it is time, end when we were asked to."""
        at = self.at
        at.step, at.steps_done = at.step + 1, at.steps_done + 1
        if at.steps_done % LOG_EVERY == 0:
            lr = self.optimizer.param_groups[0]["lr"]
            values = {name: value.item() for name, value in parts.items()}
            self.metrics.add(phase=phase.name, epoch=at.epochs_done, step=at.steps_done, lr=lr, **values)
        self.bar.advance(1, note=f"loss {parts['loss'].item():.3f}" if at.steps_done % 10 == 0 else "")
        stopping = any_process(self.stop.asked, self.world)
        if stopping or at.steps_done % self.recipe.train.save_every == 0:
            self._mark()
        if stopping:
            raise Stopped(f"Stopped at step {at.steps_done}; everything is saved.", "Run the same command to go on.")

    def _finish_epoch(self, phase: Phase) -> None:
        at = self.at
        measured = self.course.validate()
        at.epoch, at.step, at.epochs_done = at.epoch + 1, 0, at.epochs_done + 1
        better = measured["val_loss"] < at.best_loss
        at.best_loss = measured["val_loss"] if better else at.best_loss
        at.epochs_since_best = 0 if better else at.epochs_since_best + 1
        self.metrics.add(phase=phase.name, epoch=at.epochs_done, step=at.steps_done, **measured)
        self._mark()

    def _mark(self) -> None:
        """A point to go on from; atomic, so a kill leaves this one or the one before."""
        if self.world.is_main_process:
            state = {"model": self.objective.state_dict(), "optimizer": self.optimizer.state_dict()}
            save_state(self.folder, {**state, "position": asdict(self.at), "metrics_length": self.metrics.length})


def make_optimizer(parameters: list[nn.Parameter], recipe: Recipe, phase: Phase) -> torch.optim.Optimizer:
    train = recipe.train
    if train.optimizer == "sgd":
        return torch.optim.SGD(parameters, phase.lr, momentum=train.momentum, weight_decay=train.weight_decay)
    if train.optimizer == "adam":
        return torch.optim.Adam(parameters, phase.lr, weight_decay=train.weight_decay)
    return torch.optim.AdamW(parameters, phase.lr, weight_decay=train.weight_decay)


def rate(phase: Phase, epoch: int, done: float) -> float:
    """The learning rate at `done` (0 to 1) of a phase, in its epoch `epoch`."""
    rise = min(1.0, (done + 1e-3) / phase.warmup) if phase.warmup else 1.0
    if phase.schedule == "step":
        return phase.lr * rise * 0.1 ** (epoch // phase.step_epochs)
    if phase.schedule == "cosine":
        fall = max(0.0, (done - phase.warmup) / (1 - phase.warmup))
        return phase.lr * rise * 0.5 * (1 + math.cos(math.pi * fall))
    return phase.lr * rise


def set_mode(objective: nn.Module, frozen: tuple[str, ...]) -> None:
    """Training mode, but for the frozen parts: their batch norms must not move either."""
    objective.train()
    for name, module in objective.named_modules():
        if frozen and name.startswith(frozen):
            module.eval()


def _is_level(phase: Phase, at: Position) -> bool:
    return phase.until == "level" and at.epochs_since_best >= phase.patience


@dataclass
class Stop:
    asked: bool = False


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """The first Ctrl-C or SIGTERM asks for an orderly end; a second Ctrl-C ends at once."""
    stop = Stop()

    def ask(number: int, _frame: FrameType | None) -> None:
        if stop.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
