"""``load_or_train``: the notebook is short to run, and the training stays in it, one profile away.

Smoke loads the checkpoint that comes with the repository when it is the model that was asked for; otherwise the training
runs once and is kept under ``runs/<profile>/artefacts/``, found again by a hash of everything that could change it.
"""

from __future__ import annotations

import dataclasses
import inspect
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

from kinelib.course.lesson import current
from kinelib.course.places import runs_folder, shipped_checkpoints
from kinelib.course.sources import hash_text, library_hashes

if TYPE_CHECKING:
    from torch import nn


def load_or_train(
    name: str,
    build: Callable[[], nn.Module],
    train: Callable[[nn.Module], Any],
    *,
    settings: dict[str, Any] | None = None,
    checkpoint_folder: str | Path | None = None,
    use_shipped: bool | None = None,
    card: str = "",
) -> nn.Module:
    """Returns a trained model: the shipped one, the one trained before with the same code, or a newly trained one.

    Args:
        name: the checkpoint's folder name, such as ``"zipmo_autoencoder"``.
        build: makes the untrained model; the model's ``config`` is a frozen dataclass.
        train: trains the model it is given in place.
        settings: anything else that changes the training and is not in the code of ``build`` and ``train`` or in the
            numbers and texts they read; kept in the hash.
        checkpoint_folder: where shipped checkpoints lie; ``data/checkpoints`` by default.
        use_shipped: whether a shipped checkpoint may be taken; by default only in the smoke profile, because the other
            profiles are there to train.
        card: Markdown for the card of a newly trained checkpoint.

    Returns:
        the model in evaluation mode on the lesson's device.

    Raises:
        ValueError: when a checkpoint does not fit the model (by the name of what differs).
    """
    import torch

    from kinelib.learning import checkpoints

    lesson = current()
    # Seeded apart, so that what is drawn after this call is the same whether the model was loaded or trained.
    with torch.random.fork_rng():
        torch.manual_seed(lesson.seed)
        model = build()
        shipped = (Path(checkpoint_folder) if checkpoint_folder else shipped_checkpoints()) / name
        if lesson.profile == "smoke" if use_shipped is None else use_shipped:
            different = _difference(shipped, model)
            if different is None:
                print(f"{name}: loaded the shipped checkpoint (how it was trained: {name}/card.md)")
                return checkpoints.load(shipped, type(model), type(model.config)).to(lesson.device)
            print(f"{name}: {different}")

        identity = {
            "name": name,
            "config": repr(model.config),
            "seed": lesson.seed,
            "settings": repr(sorted((settings or {}).items())),
            "build": describe(build),
            "train": describe(train),
            "library": library_hashes(_imports_behind(type(model), build, train)),
        }
        kept = runs_folder() / lesson.profile / "artefacts" / f"{name}-{hash_text(repr(identity))}"
        if kept.is_dir():
            extra = checkpoints.read_config(kept)["extra"]
            print(f"{name}: loaded from cache, trained in {duration(extra['seconds'])} on {extra['date']}")
            return checkpoints.load(kept, type(model), type(model.config)).to(lesson.device)

        started = time.monotonic()
        model.to(lesson.device).train()
        train(model)
        seconds = round(time.monotonic() - started, 1)
        about = card or f"# {name}\n\nTrained by notebook {lesson.notebook}, profile {lesson.profile}, seed {lesson.seed}.\n"
        extra = {"seconds": seconds, "date": date.today().isoformat(), "notebook": lesson.notebook}
        checkpoints.save(kept, model, card=about, extra=extra)
        print(f"{name}: trained in {duration(seconds)}; kept for the next run")
        return model.eval()


def duration(seconds: float) -> str:
    """Seconds as a reader says them: ``"8.2 s"``, ``"3 min 12 s"``, ``"2 h 5 min"``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def describe(function: Callable[..., Any]) -> str:
    """A text that changes when a function would act differently: its code, and the plain values and functions it reads.

    Values that are not plain (tensors, models) and functions of other modules are left out; put what matters of them in
    ``settings``.
    """
    parts: list[str] = []
    seen: set[int] = set()

    def visit(thing: Callable[..., Any]) -> None:
        if id(thing) in seen or not isinstance(thing, FunctionType):
            return
        seen.add(id(thing))
        parts.append(_instructions(thing.__code__))
        closure = dict(zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True))
        for name in sorted(_names(thing.__code__)):
            try:
                value = closure[name].cell_contents if name in closure else thing.__globals__[name]
            except (KeyError, ValueError):  # an attribute's name, a built-in, or a variable not yet assigned
                continue
            if isinstance(value, FunctionType) and value.__module__ == thing.__module__:
                visit(value)
            elif _is_plain(value):
                parts.append(f"{name}={value!r}")
        parts.append(repr([value for value in thing.__defaults__ or () if _is_plain(value)]))

    visit(function)
    return "\n".join(parts)


def _instructions(code: CodeType) -> str:
    """A function's byte code, names and constants, inner functions included: comments and layout do not count."""
    shown = lambda one: repr(sorted(one, key=repr) if isinstance(one, frozenset) else one)  # a set has no order of its own
    inner = [_instructions(one) if isinstance(one, CodeType) else shown(one) for one in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {inner}"


def _names(code: CodeType) -> set[str]:
    """Every global and closure name that a function reads, inner functions included."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names) | set(code.co_freevars) | {name for one in inner for name in _names(one)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_plain(one) for one in value)
    if isinstance(value, dict):
        return all(_is_plain(one) for pair in value.items() for one in pair)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value).__dataclass_params__.frozen
    return value is None or isinstance(value, (bool, int, float, str))


def _imports_behind(*things: Any) -> str:
    """Import statements for the library modules that a class and some functions come from or read."""
    modules = {thing.__module__ for thing in things}
    for thing in things:
        if isinstance(thing, FunctionType):
            for name in _names(thing.__code__):
                value = thing.__globals__.get(name)
                modules.add(getattr(value, "__name__" if inspect.ismodule(value) else "__module__", None) or "")
    return "\n".join(sorted(f"import {module}" for module in modules if module.split(".")[0] == "kinelib"))


def _difference(shipped: Path, model: nn.Module) -> str | None:
    """Why a shipped checkpoint is not the model asked for, or None when it is."""
    from kinelib.learning import checkpoints

    if not shipped.is_dir():
        return "no such checkpoint is shipped"
    stored = checkpoints.read_config(shipped)
    if stored["class"] != type(model).__name__:
        return f"the shipped checkpoint is a {stored['class']}, not a {type(model).__name__}"
    wanted = dataclasses.asdict(model.config)
    # Fields that only one side knows are left to load(), which refuses them by name.
    for key in stored["arguments"].keys() & wanted.keys():
        if _listed(stored["arguments"][key]) != _listed(wanted[key]):
            return f"the shipped checkpoint has {key} {stored['arguments'][key]}, not {wanted[key]}"
    return None


def _listed(value: Any) -> Any:
    """Tuples as lists, all the way down, as JSON keeps them."""
    return [_listed(one) for one in value] if isinstance(value, (tuple, list)) else value
