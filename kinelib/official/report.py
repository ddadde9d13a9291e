"""The parity check: recorded inputs of the official implementations through our modules, and how far the outputs are apart.

A folder holds pairs NAME_weights.safetensors and NAME_io.safetensors; the beginning of NAME says which system it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from kinelib.official.kimodo_cases import KIMODO_INPUTS, kimodo_outputs, without_padding
from kinelib.official.tmr import is_tmr_input, tmr_numbers, tmr_outputs
from kinelib.official.zipmo_cases import is_input, libero_outputs, open_domain_outputs

Recorded = dict[str, Tensor]


@dataclass(frozen=True)
class ParityRow:
    """One output of one reference case."""

    case: str  # name of the pair of files
    output: str  # name of the recorded tensor
    absolute: float  # largest absolute difference
    relative: float  # the same, divided by the largest absolute value recorded
    note: str = ""  # why nothing was compared, where nothing was

    def passes(self, tolerance: float) -> bool:
        """Whether the difference is at most `tolerance` relative (a NaN does not pass)."""
        return not self.note and self.relative <= tolerance


def parity(folder: str | Path) -> list[ParityRow]:
    """Compares every NAME_weights / NAME_io pair of a folder with our modules.

    Raises:
        FileNotFoundError: when the folder holds no such pair.
    """
    folder = Path(folder)
    names = sorted({re.sub(r"_(io|weights)$", "", path.stem) for path in folder.glob("*_[iw]*.safetensors")})
    if not names:
        raise FileNotFoundError(f"{folder} holds no NAME_weights.safetensors / NAME_io.safetensors pairs.")
    return [row for name in names for row in _case(folder, name)]


def _case(folder: Path, name: str) -> list[ParityRow]:
    from safetensors import SafetensorError, safe_open

    files = {part: folder / f"{name}_{part}.safetensors" for part in ("io", "weights")}
    missing = [path.name for path in files.values() if not path.is_file()]
    if missing:
        return [ParityRow(name, "-", 0, 0, f"{missing[0]} is missing")]
    check = next((check for prefix, check in _CHECKS.items() if name.startswith(prefix)), None)
    if check is None:
        return [ParityRow(name, "-", 0, 0, f"unknown system; names begin with {', '.join(_CHECKS)}")]
    try:
        with safe_open(files["io"], "pt") as file:
            config = json.loads((file.metadata() or {})["config"])
            recorded = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        recorded = check.comparable(recorded) | check.numbers(config)
        computed = check.outputs(files["weights"], config, recorded)
    except (ValueError, KeyError, SafetensorError) as error:
        return [ParityRow(name, "-", 0, 0, f"{type(error).__name__}: {error}")]
    unchecked = [key for key in recorded if key not in computed and not check.is_input(key, recorded)]
    rows = [_compared(name, output, ours, recorded[output]) for output, ours in computed.items()]
    return rows + [ParityRow(name, output, 0, 0, "recorded, but nothing computes it") for output in unchecked]


def _compared(case: str, output: str, ours: Tensor, theirs: Tensor) -> ParityRow:
    if ours.shape != theirs.shape:
        return ParityRow(case, output, 0, 0, f"shape {tuple(ours.shape)}, recorded {tuple(theirs.shape)}")
    worst = float((ours.double() - theirs.double()).abs().max())
    return ParityRow(case, output, worst, worst / max(float(theirs.double().abs().max()), 1e-12))


@dataclass(frozen=True)
class _Check:
    """How the recordings of one system are compared."""

    outputs: Callable[[Path, dict, Recorded], Recorded]  # weights, config, recording -> our outputs
    is_input: Callable[[str, Recorded], bool] = is_input  # whether a tensor is an input
    comparable: Callable[[Recorded], Recorded] = dict  # takes out what has no meaning
    numbers: Callable[[dict], Recorded] = lambda config: {}  # recorded numbers of the config, compared like tensors


# Systems in order of their prefix.
_CHECKS: dict[str, _Check] = {
    "zipmo_libero": _Check(libero_outputs),
    "zipmo": _Check(open_domain_outputs),
    "kimodo": _Check(kimodo_outputs, lambda name, _: name in KIMODO_INPUTS, without_padding),
    "tmr": _Check(tmr_outputs, is_tmr_input, numbers=tmr_numbers),
}


def parity_report(folder: str | Path, tolerance: float = 1e-4) -> tuple[str, bool]:
    """The parity table of a folder as text, and whether everything compared agrees to `tolerance` relative.

    What could not be compared has a line that says why, and fails.
    """
    rows = parity(folder)
    compared = [row for row in rows if not row.note]
    lines = [f"{'case':<22}{'output':<26}{'max abs':>10}{'relative':>10}  result"]
    for row in rows:
        verdict = row.note or ("ok" if row.passes(tolerance) else f"above {tolerance:g}")
        numbers = f"{'-':>10}{'-':>10}" if row.note else f"{row.absolute:>10.1e}{row.relative:>10.1e}"
        lines.append(f"{row.case:<22}{row.output:<26}{numbers}  {verdict}")
    good = bool(compared) and all(row.passes(tolerance) for row in rows)
    built = sum(row.passes(tolerance) for row in compared)
    lines.append(f"{built} of {len(compared)} outputs agree to {tolerance:g}; relative to the largest recorded value.")
    return "\n".join(lines), good
