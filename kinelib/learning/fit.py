"""The one training loop: from a notebook cell on a laptop to several GPUs, through Accelerate.

Started as plain Python it is one process; under ``torchrun`` every process draws its own batches and gradients are
averaged. All that shapes the result stands in `FitConfig`, not in a launcher's file.

Randomness is a function of (seed, step, process): `draw` and `loss` get generators seeded from these, and so does
torch's own generator, for layers such as dropout. A resumed run therefore needs no saved random state, skips no
data, and continues with exactly the losses of an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kinelib.learning import interrupts, state
from kinelib.learning.ema import WeightAverage
from kinelib.learning.optimizer import OPTIMIZERS, build_optimizer
from kinelib.learning.progress import Log, Progress, say
from kinelib.learning.schedule import Stopwatch, learning_rate_factor

# What a line of log.jsonl holds beside the loss terms.
RESERVED = ("step", "seconds", "gradient_norm", "learning_rate", "items_per_second", "validation")


@dataclass(frozen=True)
class FitConfig:
    """How to train; exactly one of ``steps`` and ``seconds``."""

    steps: int | None = None  # number of updates
    seconds: float | None = None  # or a budget of training seconds (validation and saving not counted)
    learning_rate: float = 1e-3  # peak, after the warm-up
    optimizer: str = "adamw"  # or "adam-atan2", which Kimodo is trained with
    betas: tuple[float, float] = (0.9, 0.99)  # the optimizer's moment decays
    weight_decay: float = 0.01  # on matrices only: gains, biases and other 1-d parameters are left alone
    warmup: float = 0.04  # share of the training spent warming up
    final_learning_rate: float = 0.0  # at the end, as a share of the peak
    clip_norm: float | None = 1.0  # largest gradient norm; None does not clip
    ema_decay: float | None = 0.999  # moving average of the weights; None keeps none
    seed: int = 0  # of everything random in the training
    log_every: int = 50  # steps between two lines of log.jsonl, which hold means over those steps
    save_every_seconds: float = 120  # between two saved states
    accumulate: int = 1  # batches per update and process
    mixed_precision: str = "no"  # "no" or "bf16"

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.seconds is None):
            raise ValueError(f"Give exactly one of steps and seconds; got steps={self.steps}, seconds={self.seconds}.")
        checks = {
            "steps": self.steps is None or self.steps >= 1,
            "seconds": self.seconds is None or 0 < self.seconds < math.inf,
            "learning_rate": 0 < self.learning_rate < math.inf,
            "optimizer": self.optimizer in OPTIMIZERS,
            "weight_decay": self.weight_decay >= 0,
            "warmup": 0 <= self.warmup < 1,
            "final_learning_rate": 0 <= self.final_learning_rate <= 1,
            "clip_norm": self.clip_norm is None or self.clip_norm > 0,
            "ema_decay": self.ema_decay is None or 0 <= self.ema_decay < 1,
            "seed": self.seed >= 0,
            "log_every": self.log_every >= 1,
            "save_every_seconds": self.save_every_seconds >= 0,
            "accumulate": self.accumulate >= 1,
            "mixed_precision": self.mixed_precision in ("no", "bf16"),
        }
        for name, fine in checks.items():
            if not fine:
                raise ValueError(f"FitConfig.{name} = {getattr(self, name)!r} is out of range; see its comment.")


@dataclass
class FitResult:
    """What a training did, the part before a resume included."""

    steps: int  # updates done
    seconds: float  # training seconds
    losses: list[dict[str, Any]]  # the logged lines: step, seconds, loss terms, learning_rate, gradient_norm
    stopped_early: bool  # a signal asked it to stop; resume=True continues
    validations: list[dict[str, Any]] = field(default_factory=list)  # step, seconds and what `validate` returned


class NotFiniteError(ArithmeticError):
    """A loss or gradient became NaN or infinite."""


class _LossModule(nn.Module):
    """Network and loss as one forward pass, so that `loss` may call any method of the network (encode, decode, ...)
    and gradients are still averaged over processes, which DistributedDataParallel does around `forward` only."""

    def __init__(self, model: nn.Module, loss: Callable[..., dict[str, Tensor]], dtype: torch.dtype | None):
        super().__init__()
        self.model, self.loss, self.dtype = model, loss, dtype

    def forward(self, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        device = generator.device.type
        with torch.autocast(device, dtype=self.dtype) if self.dtype else contextlib.nullcontext():
            terms = self.loss(self.model, batch, generator)
        _check_terms(terms)
        # Only the loss is minimised: the others must not look like outputs that gradients will come from.
        return {name: term if name == "loss" else term.detach() for name, term in terms.items()}


def fit(
    model: nn.Module,
    draw: Callable[..., Any],
    loss: Callable[[nn.Module, Any, torch.Generator], dict[str, Tensor]],
    config: FitConfig,
    folder: str | Path,
    *,
    tell_progress: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
    validate_every: int = 0,
    description: str = "",
) -> FitResult:
    """Trains a network in place and returns its loss curve; afterwards it holds the averaged weights, in eval mode.

    Args:
        model: the network; it is moved to Accelerate's device.
        draw: makes one batch (tensors, or containers and objects of tensors) from a CPU generator, which must be its
            only source of randomness; with `tell_progress` it is called with (generator, progress).
        loss: maps (model, batch, generator on the device) to scalar terms; "loss" is minimised, all are logged.
        config: how to train.
        folder: gets ``log.jsonl`` and ``state/``.
        tell_progress: whether `draw` is told the share of the training that is done, in [0, 1): a curriculum needs it.
        resume: go on from the state in the folder, if there is one.
        overwrite: start afresh although the folder holds a state.
        validate: measures the averaged weights, in eval mode and without gradients, in every process.
        validate_every: steps between validations; 0 validates at the end only.
        description: name of the run, for the log line and the bar.

    Raises:
        FileExistsError: when the folder holds a state and neither ``resume`` nor ``overwrite`` says what to do with it.
        ResumeError: when the state was made by another config, number of processes or network.
        NotFiniteError: at a NaN or infinite loss or gradient, naming the step; saved states are older and stay.
        OSError: when a state cannot be saved; the previous one stays.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs

    folder = Path(folder)
    going_on = resume and state.exists(folder)
    if state.exists(folder) and not (resume or overwrite):
        raise FileExistsError(
            f"{folder} holds a training at step {state.read(folder).step}. Pass resume=True to go on with it, "
            "overwrite=True to start afresh, or choose another folder."
        )
    # Parts of a network may rest in a step, for example those of a condition that was dropped.
    resting = DistributedDataParallelKwargs(find_unused_parameters=True)
    # Where there is no GPU and nobody says so, Accelerate ignores torchrun: every process would train alone.
    accelerator = Accelerator(cpu=not torch.accelerator.is_available(), mixed_precision="no", kwargs_handlers=[resting])
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != launched:
        raise RuntimeError(
            f"The launcher started {launched} processes, but Accelerate sees {accelerator.num_processes}. "
            "Start with torchrun, and build no other Accelerator before fit."
        )
    if str(accelerator.distributed_type.value) not in ("NO", "MULTI_CPU", "MULTI_GPU"):
        raise ValueError(f"fit replicates the network in every process; {accelerator.distributed_type} is not supported.")
    if overwrite and not resume and accelerator.is_main_process:
        state.remove(folder)
    with interrupts.collected() as stop, _own_randomness(accelerator.device):
        told = draw if tell_progress else lambda generator, progress: draw(generator)
        run = _Run(accelerator, model, told, loss, config, folder, description or type(model).__name__)
        return run.train(going_on, stop, validate, validate_every)


class _Run:
    """The moving parts of one call of `fit`."""

    def __init__(self, accelerator, model, draw, loss, config: FitConfig, folder: Path, description: str):
        self.accelerator, self.model, self.draw, self.config = accelerator, model, draw, config
        self.folder, self.description = folder, description
        self.device, self.main, self.world = accelerator.device, accelerator.is_main_process, accelerator.num_processes
        self.step, self.rate, self.items = 0, 0.0, 0  # updates done, learning rate, items in one batch
        self.terms: list[str] = []  # names of what a window's rows hold
        self.window: list[Tensor] = []  # one row a step since the last logged line
        model.train()
        dtype = torch.bfloat16 if config.mixed_precision == "bf16" else None
        self.stepper = accelerator.prepare(_LossModule(model, loss, dtype))
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError(f"{type(model).__name__} has no parameter that requires a gradient; there is nothing to train.")
        rates = {"learning_rate": config.learning_rate, "betas": config.betas, "weight_decay": config.weight_decay}
        self.optimizer = build_optimizer(config.optimizer, self.parameters, **rates)
        self.ema = WeightAverage(model, config.ema_decay) if config.ema_decay is not None else None
        # betas as JSON has them, so that this compares equal with what state.json holds.
        self.identity = {**dataclasses.asdict(config), "betas": list(config.betas), "num_processes": self.world}
        if config.optimizer == "adamw":
            del self.identity["optimizer"]  # states from before there was a choice do not name it

    def train(self, resume: bool, stop: list[int], validate: Callable | None, validate_every: int) -> FitResult:
        """The loop; `stop` becomes non-empty when a signal arrives."""
        config, progress = self.config, None
        seconds = self.restore() if resume else 0.0
        self.log = Log(self.folder / "log.jsonl", step=self.step, enabled=self.main)
        # Every process must have read the old log and state before the first one writes.
        self.accelerator.wait_for_everyone()
        validated = any("validation" in entry and entry["step"] == self.step for entry in self.log.entries)
        self.clock = Stopwatch(seconds)
        self.last_line, last_save, updated = (self.step, seconds), seconds, False
        total = config.steps or config.seconds
        try:
            while True:
                now, stopping, saving = self.agree(bool(stop), last_save)
                finished = self.done(now) >= total
                if finished or stopping:
                    break
                if saving:
                    with self.clock.paused():
                        self.save()
                    last_save = self.clock.seconds
                at = (self.step + 0.5) / config.steps if config.steps else now / config.seconds
                start = self.done(now)
                factor = learning_rate_factor(at, config.warmup, config.final_learning_rate)
                self.update(factor * config.learning_rate, min(start / total, 1.0))
                if progress is None:
                    progress = self.announce(start, total)
                if self.step % config.log_every == 0 or self.step in (1, config.steps):
                    line = self.write_line()
                    progress.report(self.done(self.clock.seconds), line, last=self.step == config.steps)
                validated = bool(validate and validate_every) and self.step % validate_every == 0
                if validated:
                    with self.clock.paused():
                        self.write_validation(validate)
                progress.update(self.done(self.clock.seconds))
                updated = True
            with self.clock.paused():
                if finished and self.window:
                    progress.report(total, self.write_line(), last=True)
                if finished and validate and not validated:
                    self.write_validation(validate)
                if updated:
                    self.save()
        finally:
            if progress is not None:
                progress.close()
        if self.ema is not None:
            self.ema.write_to_model()
        self.model.eval()
        losses = [entry for entry in self.log.entries if "validation" not in entry]
        checks = [
            {"step": entry["step"], "seconds": entry["seconds"], **entry["validation"]}
            for entry in self.log.entries
            if "validation" in entry
        ]
        return FitResult(self.step, self.clock.seconds, losses, not finished, checks)

    def done(self, seconds: float) -> float:
        """How far the training is, in the unit of its budget."""
        return self.step if self.config.steps else seconds

    def agree(self, stop: bool, last_save: float) -> tuple[float, bool, bool]:
        """Seconds, whether to stop and whether to save: the first process's clock and anybody's signal, alike everywhere."""
        now = self.clock.seconds
        save = now - last_save >= self.config.save_every_seconds and self.step > 0
        if self.world == 1:
            return now, stop, save
        mine = torch.tensor([now if self.main else 0.0, float(stop), float(save and self.main)], dtype=torch.float64)
        now, stopping, saving = self.accelerator.reduce(mine.to(self.device), reduction="sum").tolist()
        return now, stopping > 0, saving > 0

    def update(self, rate: float, progress: float) -> None:
        """One update: the batches of one step, their gradients, the optimizer and the moving average."""
        self.rate = rate
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for part in range(self.config.accumulate):
            draws, noise = self.generators(part)
            batch = _to_device(self.draw(draws, progress), self.device)
            self.items = self.items or _batch_size(batch)
            last = part + 1 == self.config.accumulate
            # Gradients travel between processes once a step, with the last batch.
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.stepper):
                terms = self.stepper(batch, noise)
                self.accelerator.backward(terms["loss"] / self.config.accumulate)
            for name, term in terms.items():
                share = term.detach().float().reshape(()) / self.config.accumulate
                sums[name] = sums[name] + share if name in sums else share
        sums["gradient_norm"] = nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm or math.inf)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update(self.step)
        self.step += 1
        self.terms = self.terms or list(sums)
        if list(sums) != self.terms:
            raise ValueError(f"loss must return the same terms at every step; had {self.terms[:-1]}, got {list(sums)[:-1]}.")
        # Kept as tensors until the next line: reading a value now would make the host wait for the device.
        self.window.append(torch.stack([value.to(self.device, torch.float32) for value in sums.values()]))

    def generators(self, part: int) -> tuple[torch.Generator, torch.Generator]:
        """Generators for draw (CPU) and loss (device), and torch's own, seeded from what identifies this batch."""
        key = (self.config.seed, self.step, self.accelerator.process_index, part)
        a, b, c = (int(word) for word in np.random.SeedSequence(key).generate_state(3))
        torch.default_generator.manual_seed(c)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(c)
        return torch.Generator().manual_seed(a), torch.Generator(self.device).manual_seed(b)

    def rows(self) -> list[list[float]]:
        """The window as numbers, averaged over processes; every process must call it at the same step.

        Raises:
            NotFiniteError: naming the first step and term that is not finite.
        """
        if not self.window:
            return []
        gathered = self.accelerator.gather(torch.stack(self.window)[None])
        first = self.step - len(self.window) + 1
        for row, bad in enumerate((~torch.isfinite(gathered)).any(dim=0).tolist()):
            if any(bad):
                names = " and ".join(name for name, b in zip(self.terms, bad, strict=True) if b)
                kept = f"The state of step {state.read(self.folder).step}" if state.exists(self.folder) else "No state"
                raise NotFiniteError(
                    f"Step {first + row} of {self.description}: {names} became NaN or infinite. {kept} is on disk. "
                    "Lower the learning rate or clip_norm, lengthen the warm-up, or look for bad values in the batch."
                )
        return gathered.mean(dim=0).tolist()

    def write_line(self) -> dict[str, Any]:
        """Logs the means over the steps since the last line."""
        rows, now = self.rows(), self.clock.seconds
        steps, seconds = self.step - self.last_line[0], now - self.last_line[1]
        entry: dict[str, Any] = {"step": self.step, "seconds": round(now, 3)}
        entry |= {name: sum(row[i] for row in rows) / len(rows) for i, name in enumerate(self.terms)}
        entry["learning_rate"] = self.rate
        if self.items and seconds > 0:
            entry["items_per_second"] = round(steps * self.items * self.config.accumulate * self.world / seconds, 1)
        self.log.write(entry)
        self.window, self.last_line = [], (self.step, now)
        return entry

    def write_validation(self, validate: Callable[[nn.Module], dict[str, float]]) -> None:
        """Measures the averaged weights and logs what comes back."""
        self.rows()  # A broken network is reported as such, not as a strange validation.
        self.model.eval()
        with self.ema.in_model() if self.ema is not None else contextlib.nullcontext(), torch.no_grad():
            numbers = {name: float(value) for name, value in validate(self.model).items()}
        self.model.train()
        self.log.write({"step": self.step, "seconds": round(self.clock.seconds, 3), "validation": numbers})

    def save(self) -> None:
        """Writes the state, after making sure that it is worth keeping."""
        file, seconds = f"step_{self.step}.safetensors", self.clock.seconds
        saved = state.Saved(self.step, seconds, self.identity, self.terms, self.rows(), file)
        if self.main:
            state.save(self.folder, saved, self.model, self.optimizer, self.ema)
        self.accelerator.wait_for_everyone()

    def restore(self) -> float:
        """Takes up the saved state; returns the training seconds already used."""
        saved = state.read(self.folder)
        state.check_config(saved, self.identity, self.folder)
        state.load(self.folder, saved, self.model, self.optimizer, self.ema)
        self.step, self.terms = saved.step, saved.terms
        self.window = [torch.tensor(row, device=self.device) for row in saved.window]
        return saved.seconds

    def announce(self, start: float, total: float) -> Progress:
        """Says what is being trained, the batch factorisation included, and opens the bar."""
        unit = "steps" if self.config.steps else "s"
        if self.main:
            size = sum(p.numel() for p in self.parameters)
            resumed = f", resumed at {start:.0f}" if start >= 1 else ""
            say(
                f"{self.description}: {size:,} parameters on {self.device}; {self.world} process(es) x batch "
                f"{self.items or 'of unknown size'} x accumulation {self.config.accumulate}; {total:g} {unit}{resumed}"
            )
        return Progress(self.description, start=start, total=total, unit=unit, enabled=self.main)


def _check_terms(terms: Any) -> None:
    if not isinstance(terms, dict) or "loss" not in terms:
        raise ValueError(f"loss must return a dict of scalar tensors with the key 'loss'; got {type(terms).__name__}.")
    for name, term in terms.items():
        if not isinstance(term, Tensor) or term.numel() != 1:
            raise ValueError(f"loss must return scalar tensors; {name!r} is {getattr(term, 'shape', type(term).__name__)}.")
        if name in RESERVED:
            raise ValueError(f"loss returns a term called {name!r}, which log.jsonl uses for something else; rename it.")


def _to_device(batch: Any, device: torch.device) -> Any:
    from accelerate.utils import send_to_device

    return batch if device.type == "cpu" else send_to_device(batch, device)


def _batch_size(batch: Any) -> int:
    """The leading size of the first tensor in a batch, or 0 if there is none."""
    if isinstance(batch, Tensor):
        return batch.shape[0] if batch.ndim else 0
    if isinstance(batch, dict):
        parts = list(batch.values())
    elif isinstance(batch, list | tuple):
        parts = list(batch)
    else:
        parts = list(vars(batch).values()) if dataclasses.is_dataclass(batch) else []
    return next((size for part in parts if (size := _batch_size(part))), 0)


@contextlib.contextmanager
def _own_randomness(device: torch.device) -> Iterator[None]:
    """Gives torch's own generators back as they were: training must not shift the caller's random numbers."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
