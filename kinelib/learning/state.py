"""The state of an unfinished training on disk, so that it can go on as if it had never stopped.

folder/state/ holds `state.json` (step, seconds, config, losses since the last logged line, the name of the tensor
file) and one `step_N.safetensors` (weights, their moving average, the optimizer's moments). The new tensor file is
written first; replacing state.json is the moment at which it becomes the state. A crash or a full disk at any point
leaves the previous pair complete. Random states are not stored: they are a function of the step (see fit.py).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from kinelib.learning import checkpoints
from kinelib.learning.ema import WeightAverage


class ResumeError(ValueError):
    """A training cannot go on from what is on disk."""


@dataclass(frozen=True)
class Saved:
    """What state.json says."""

    step: int  # updates done
    seconds: float  # training seconds used
    config: dict[str, Any]  # the FitConfig's fields and the number of processes
    terms: list[str]  # names of the loss terms
    window: list[list[float]]  # their values at the steps since the last logged line
    file: str  # the tensor file beside state.json


def exists(folder: Path) -> bool:
    """Whether a training folder holds a state."""
    return (folder / "state" / "state.json").is_file()


def check_free(checkpoint: Path, training: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuses to train towards a checkpoint that is there already, unless it may be replaced or its training goes on.

    Args:
        checkpoint: folder that the training will write.
        training: folder of its state.
        resume, overwrite: what the caller was asked for.

    Raises:
        FileExistsError: when the checkpoint exists, and neither `overwrite` nor a training to resume.
    """
    if checkpoint.exists() and not overwrite and not (resume and exists(training)):
        raise FileExistsError(f"{checkpoint} exists; pass overwrite=True to train it afresh, or choose another folder.")


def remove(folder: Path) -> None:
    """Forgets a training's state; state.json goes first, so that no half of it can be mistaken for a state."""
    (folder / "state" / "state.json").unlink(missing_ok=True)
    for tensors in (folder / "state").glob("step_*"):
        tensors.unlink(missing_ok=True)


def save(folder: Path, saved: Saved, model: nn.Module, optimizer: torch.optim.Optimizer, ema: WeightAverage | None) -> None:
    """Writes the state; when that fails the previous state is still there.

    Raises:
        OSError: when the disk is full or cannot be written, naming the step that is kept.
    """
    place = folder / "state"
    target, partial = place / saved.file, place / (saved.file + ".partial")
    summary = place / "state.json.partial"
    tensors = {f"model.{name}": tensor for name, tensor in checkpoints.tensors_of(model).items()}
    tensors |= {f"optimizer.{name}": tensor.cpu() for name, tensor in _moments(model, optimizer).items()}
    if ema is not None:
        tensors |= {f"ema.{name}": tensor.cpu() for name, tensor in ema.weights.items()}
    try:
        place.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial)
        checkpoints.flush_to_disk(partial)
        os.replace(partial, target)
        summary.write_text(json.dumps(vars(saved), indent=2) + "\n", encoding="utf-8")
        checkpoints.flush_to_disk(summary)
        os.replace(summary, place / "state.json")
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        summary.unlink(missing_ok=True)
        kept = f"the state of step {read(folder).step} is kept" if exists(folder) else "there is no earlier state"
        raise OSError(
            f"Could not save the training state of step {saved.step} in {place}: {error}. {kept[0].upper()}{kept[1:]}; "
            "make room and run again with resume=True."
        ) from error
    for old in place.glob("step_*"):
        if old.name != saved.file:
            old.unlink(missing_ok=True)


def read(folder: Path) -> Saved:
    """Reads state.json.

    Raises:
        ResumeError: when it is damaged.
    """
    path = folder / "state" / "state.json"
    try:
        return Saved(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ResumeError(f"{path} is damaged ({error}); remove {path.parent} and start again.") from error


def check_config(saved: Saved, config: dict[str, Any], folder: Path) -> None:
    """Refuses to go on under another config, naming every field that differs.

    Raises:
        ResumeError: when a field other than ``save_every_seconds``, which changes no number, differs.
    """
    names = [name for name in {**config, **saved.config} if name != "save_every_seconds"]
    differ = [
        f"{name} was {saved.config.get(name)!r}, is {config.get(name)!r}"
        for name in names
        if saved.config.get(name) != config.get(name)
    ]
    if differ:
        raise ResumeError(
            f"{folder} was trained to step {saved.step} with another config: {'; '.join(differ)}. "
            "Use that config, or train in another folder."
        )


def load(folder: Path, saved: Saved, model: nn.Module, optimizer: torch.optim.Optimizer, ema: WeightAverage | None) -> None:
    """Puts the saved weights, moments and average back.

    Raises:
        ResumeError: when the tensor file is missing or damaged, or belongs to another network, by name.
    """
    path = folder / "state" / saved.file
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "ema": {}}
    try:
        for key, tensor in checkpoints.read_tensors(path).items():
            part, _, name = key.partition(".")
            parts[part][name] = tensor
        checkpoints.load_tensors(model, parts["model"], source=path)
    except (checkpoints.CheckpointError, KeyError) as error:
        raise ResumeError(f"Cannot resume from {folder}: {error}") from error
    if ema is not None:
        if parts["ema"].keys() != ema.weights.keys():
            names = sorted(parts["ema"].keys() ^ ema.weights.keys())[:4]
            raise ResumeError(f"Cannot resume from {folder}: other parameters are trainable now: {', '.join(names)}.")
        for name, tensor in parts["ema"].items():
            ema.weights[name].copy_(tensor)
    _load_moments(model, optimizer, parts["optimizer"])


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by parameter name, for example ``"layer.weight/exp_avg"``."""
    names = {p: name for name, p in model.named_parameters()}
    return {f"{names[p]}/{key}": value for p, entry in optimizer.state.items() for key, value in entry.items()}


def _load_moments(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    names = {p: name for name, p in model.named_parameters()}
    grouped: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, entry = key.rpartition("/")
        grouped.setdefault(name, {})[entry] = tensor
    # Through load_state_dict, because it knows which entries belong on the device and which on the host.
    order = [names[p] for group in optimizer.param_groups for p in group["params"]]
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict(
        {"state": {i: grouped[n] for i, n in enumerate(order) if n in grouped}, "param_groups": groups}
    )
