"""Checkpoint folders: weights without pickle, every constructor argument, and a card a person can read.

A folder holds exactly three files:
    model.safetensors   every entry of the network's state dict
    config.json         {"class", "version", "arguments": the config's fields, "extra": statistics and the like}
    card.md             data, licence, commit, command and metrics

A folder is complete or it is not there: it is written beside its destination and renamed. Loading compares class,
config fields, tensor names and shapes with what the code expects, and refuses each difference by name.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import kinelib
from kinelib.learning.int8_rows import unpack

Model = TypeVar("Model", bound=nn.Module)

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "card.md"


class CheckpointError(ValueError):
    """A folder is not a checkpoint, or not one of the network that was asked for."""


def save(
    folder: str | Path,
    model: nn.Module,
    *,
    card: str,
    extra: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    half: bool = False,
) -> Path:
    """Writes a checkpoint folder that is either complete or absent.

    Args:
        folder: destination; its parents are made.
        model: a network whose ``config`` attribute is the dataclass it was built from.
        card: text of card.md, for example from :func:`write_card`.
        extra: anything else that fits in JSON, for example how the checkpoint was measured.
        overwrite: replace an older checkpoint, once the new one is complete on disk.
        half: store parameters and floating buffers of two dimensions or more as float16, which halves the file; all else
            stays exact.

    Raises:
        FileExistsError: when the folder is in use and ``overwrite`` is off, or holds files that are not a checkpoint's.
        CheckpointError: when weights are NaN or infinite, or the config does not survive JSON.
        OSError: when writing fails; an older checkpoint is then untouched.
    """
    folder = Path(folder)
    _refuse_to_overwrite(folder, overwrite)
    config = _config_of(model)
    try:
        description = json.dumps(
            {
                "class": type(model).__name__,
                "version": kinelib.__version__,
                "arguments": dataclasses.asdict(config),
                "extra": dict(extra or {}),
            },
            indent=2,
            allow_nan=False,
        )
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"The config of {type(model).__name__} or `extra` does not fit in JSON: {error}.") from error
    if build_config(type(config), json.loads(description)["arguments"]) != config:
        raise CheckpointError(f"{type(config).__name__} changes on its way through JSON; use numbers, strings and tuples.")
    tensors = tensors_of(model)
    if half:
        matrices = {name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.ndim > 1}
        tensors = {name: tensor.half() if name in matrices else tensor for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(f"{name} holds NaN or infinity; this network is broken, so it is not saved.")

    folder.parent.mkdir(parents=True, exist_ok=True)
    writing = folder.with_name(f".{folder.name}.writing-{os.getpid()}")
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir()
    try:
        save_file(tensors, writing / WEIGHTS)
        (writing / CONFIG).write_text(description + "\n", encoding="utf-8")
        (writing / CARD).write_text(card.rstrip() + "\n", encoding="utf-8")
        for name in (WEIGHTS, CONFIG, CARD):
            flush_to_disk(writing / name)
        _swap_in(writing, folder)
    finally:
        shutil.rmtree(writing, ignore_errors=True)
    return folder


def load(folder: str | Path, model_class: type[Model], config_class: type) -> Model:
    """Builds a network from a checkpoint folder and returns it on the CPU in eval mode.

    Args:
        folder: what :func:`save` wrote.
        model_class: the network's class, called with one config.
        config_class: the dataclass of its config.

    Raises:
        FileNotFoundError: when the folder or one of its files is missing.
        CheckpointError: when class, config fields, tensor names or shapes differ, or a file is damaged.
    """
    folder = Path(folder)
    description = read_config(folder)
    if description["class"] != model_class.__name__:
        raise CheckpointError(f"{folder} holds a {description['class']}, not a {model_class.__name__}.")
    try:
        config = build_config(config_class, description["arguments"])
        # Initial weights are overwritten below; drawing them must not shift the caller's random numbers.
        with torch.random.fork_rng(devices=[]):
            model = model_class(config)
    except CheckpointError as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}") from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG}: {model_class.__name__} refuses these arguments: {error}") from error
    load_tensors(model, read_tensors(folder / WEIGHTS), source=folder / WEIGHTS)
    return model.eval()


def read_config(folder: str | Path) -> dict[str, Any]:
    """Reads config.json: a dictionary with the keys class, version, arguments and extra.

    Raises:
        FileNotFoundError: when the folder is not there, with a hint if an overwrite was interrupted.
        CheckpointError: when the file is not a checkpoint's config.
    """
    folder = Path(folder)
    previous = _previous(folder)
    if not folder.is_dir():
        hint = (
            f" An overwrite was interrupted: the previous checkpoint is {previous}; rename it back."
            if previous.is_dir()
            else ""
        )
        raise FileNotFoundError(f"There is no checkpoint folder {folder}.{hint}")
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} is not a checkpoint: it has no {name}.")
    try:
        description = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{folder / CONFIG} is not JSON ({error}); it is damaged or not ours.") from error
    keys = {"class": str, "version": str, "arguments": dict, "extra": dict}
    if not isinstance(description, dict) or any(not isinstance(description.get(k), kind) for k, kind in keys.items()):
        raise CheckpointError(f"{folder / CONFIG} is not a kinelib checkpoint's config: it needs {', '.join(keys)}.")
    return description


def inherited_licence(licence: str, start: str | Path | None) -> str:
    """The licence of weights whose training began with other weights: a free one only if theirs is free too.

    Args:
        licence: what the training data alone would ask for.
        start: folder of the checkpoint that training began with; None: from random weights.

    Raises:
        CheckpointError: when that checkpoint has no card that names a licence; nobody may then say what is allowed.
    """
    if start is None:
        return licence
    path = Path(start) / CARD
    found = re.search(r"^\*\*Licence\.\*\* (.+)$", path.read_text(), re.MULTILINE) if path.is_file() else None
    if found is None:
        raise CheckpointError(f"{path} names no licence, and weights that begin there carry it; add its card.")
    theirs = found.group(1).strip()
    if theirs == licence or theirs.startswith("MIT"):
        return licence
    carried = f"{theirs} (Of the weights that training began with.)"
    return carried if licence.startswith("MIT") else f"{licence} And {carried}"


def write_card(
    title: str,
    *,
    data: str,
    licence: str,
    command: str,
    metrics: Mapping[str, float | str],
    commit: str | None = None,
    notes: str = "",
) -> str:
    """Renders card.md: what a checkpoint was made from, by which command, and how well it does.

    Args:
        title: one line.
        data: what it was trained on, how much of it, and where that comes from.
        licence: of the weights, with the data's if it differs.
        command: what reproduces it.
        metrics: name to value; floats are shown with four digits.
        commit: of the code; None asks git.
        notes: limitations, departures from the paper.

    Raises:
        ValueError: when a required part is empty, because a card with gaps is not a card.
    """
    for name, text in {"title": title, "data": data, "licence": licence, "command": command}.items():
        if not text.strip():
            raise ValueError(f"A card needs its {name}; say 'none' or 'unknown' if that is the truth.")
    rows = [f"| {name} | {f'{value:.4g}' if isinstance(value, float) else value} |" for name, value in metrics.items()]
    parts = [
        f"# {title}",
        f"**Data.** {data.strip()}",
        f"**Licence.** {licence.strip()}",
        f"**Code.** kinelib {kinelib.__version__}, commit {commit or current_commit()}",
        f"**Command.**\n\n    {command.strip()}",
        "\n".join(["| metric | value |", "|---|---|", *rows]) if rows else "No metrics were measured.",
        notes.strip(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def current_commit() -> str:
    """The short git commit of this code, "-dirty" added when files changed, or "unknown" outside a checkout."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=here, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return found.stdout.strip() if found.returncode == 0 else "unknown"


def build_config(config_class: type, arguments: Mapping[str, Any]) -> Any:
    """Rebuilds a config dataclass (nested ones too) from JSON; lists become tuples.

    Raises:
        CheckpointError: when a field is unknown or missing, by name. Defaults do not fill gaps: a default that changed
            since the checkpoint was written would silently change the network.
    """
    hints = typing.get_type_hints(config_class)
    wanted = [field.name for field in dataclasses.fields(config_class) if field.init]
    unknown, missing = sorted(set(arguments) - set(wanted)), [name for name in wanted if name not in arguments]
    if unknown or missing:
        parts = [f"unknown field {name!r}" for name in unknown] + [f"missing field {name!r}" for name in missing]
        raise CheckpointError(f"the arguments do not fit {config_class.__name__}: {', '.join(parts)}.")
    return config_class(**{name: _from_json(hints[name], arguments[name]) for name in wanted})


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """The state dict on the CPU, with tensors that share memory (tied weights) separated, as safetensors wants it."""
    tensors: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in model.state_dict().items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if storage in storages else tensor
        storages.add(storage)
    return tensors


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file onto the CPU; matrices that are kept as bytes come as float32.

    Raises:
        CheckpointError: when the file is cut short or is not safetensors.
    """
    try:
        return unpack(load_file(path))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or not a safetensors file ({error}); fetch or write it again.") from error


def load_tensors(model: nn.Module, tensors: Mapping[str, Tensor], *, source: str | Path) -> None:
    """Copies tensors into a model whose state dict must have the same names, shapes and kinds of number.

    Raises:
        CheckpointError: when they differ, naming each; the model is then unchanged.
    """
    wanted = model.state_dict()
    problems = [f"missing {name}" for name in wanted if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in wanted]
    for name in wanted.keys() & tensors.keys():
        have, want = tensors[name], wanted[name]
        if have.shape != want.shape:
            problems.append(f"{name} has shape {tuple(have.shape)}, the network wants {tuple(want.shape)}")
        elif have.is_floating_point() != want.is_floating_point():
            problems.append(f"{name} has type {have.dtype}, the network wants {want.dtype}")
    if problems:
        more = f"; and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise CheckpointError(f"{source} does not fit {type(model).__name__}: {'; '.join(sorted(problems)[:8])}{more}.")
    model.load_state_dict(tensors)


def flush_to_disk(path: Path) -> None:
    """Waits until a file's bytes are on disk, so that a rename never outruns the contents."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _from_json(hint: Any, value: Any) -> Any:
    candidates = (hint, *typing.get_args(hint))
    nested = next((c for c in candidates if isinstance(c, type) and dataclasses.is_dataclass(c)), None)
    if nested is not None and isinstance(value, dict):
        return build_config(nested, value)
    if isinstance(value, list):
        return tuple(_from_json(Any, item) for item in value)
    return value


def _config_of(model: nn.Module) -> Any:
    config = getattr(model, "config", None)
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise CheckpointError(f"{type(model).__name__} needs a `config` attribute: the dataclass it was built from.")
    return config


def _previous(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")


def _refuse_to_overwrite(folder: Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; a checkpoint is a folder. Choose another name.")
    found = {path.name for path in folder.iterdir()}
    foreign = sorted(found - {WEIGHTS, CONFIG, CARD})
    if foreign:
        raise FileExistsError(f"{folder} holds other files ({', '.join(foreign[:4])}); choose an empty or new folder.")
    if found and not overwrite:
        raise FileExistsError(f"{folder} already holds a checkpoint; pass overwrite=True to replace it.")


def _swap_in(writing: Path, folder: Path) -> None:
    """Renames a complete folder to its place; an older one steps aside first and comes back if that fails."""
    previous = _previous(folder)
    if not folder.exists():
        os.rename(writing, folder)
        return
    shutil.rmtree(previous, ignore_errors=True)
    os.rename(folder, previous)
    try:
        os.rename(writing, folder)
    except BaseException:
        os.rename(previous, folder)
        raise
    shutil.rmtree(previous, ignore_errors=True)
