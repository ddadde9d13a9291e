"""What our Kimodo modules answer to the recorded inputs of a reference pair (see the README of the reference folder).

Any of the outputs may be left out. The release leaves frames beyond a clip's end undefined, so that only the frames of a
clip are compared: `without_padding` sets the others to zero.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from kinelib.bodies import features
from kinelib.bodies.feature_statistics import Statistics
from kinelib.bodies.features import ROOT, FeatureLayout, frame_mask, local_root
from kinelib.bodies.skeleton import Skeleton
from kinelib.bodies.skeletons import named
from kinelib.kimodo.denoiser import TwoStageDenoiser
from kinelib.kimodo.diffusion import ddim
from kinelib.kimodo.guidance import GuidedDenoiser
from kinelib.official.kimodo import SKELETONS, load_kimodo

KIMODO_INPUTS = {
    "local_rotations", "root_positions", "lengths", "neutral_joints", "parents", "feature_mean", "feature_std",
    "local_root_mean", "local_root_std", "noisy", "timestep", "text", "first_heading", "mask", "target_normalized",
    "ddim_steps",
}  # fmt: skip


def without_padding(recorded: dict[str, Tensor]) -> dict[str, Tensor]:
    """The recording with zeros in all outputs beyond a clip's end.

    Raises:
        KeyError: when the lengths of the clips were not recorded.
    """
    return {
        name: values if name in KIMODO_INPUTS else _real(values, recorded["lengths"]) for name, values in recorded.items()
    }


def _real(values: Tensor, lengths: Tensor) -> Tensor:
    real = frame_mask(lengths, values.shape[1])
    return torch.where(real.reshape(*real.shape, *[1] * (values.ndim - 2)), values, torch.zeros_like(values))


@torch.no_grad()
def kimodo_outputs(weights: Path, config: dict, recorded: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our answers for motion features, both stages of the denoiser, guidance and a whole draw.

    Args:
        weights: the file of weights.
        config: of the recording.
        recorded: its tensors, :func:`without_padding`.

    Returns:
        our value of every recorded output that we can compute, by name, zero beyond a clip's end.

    Raises:
        ValueError: when the weights do not fit. KeyError: when an output was recorded without the inputs it needs.
    """
    outputs = _feature_outputs(config, recorded) | _network_outputs(weights, config, recorded)
    return {name: _real(compute(), recorded["lengths"]) for name, compute in outputs.items() if name in recorded}


def _feature_outputs(config: dict, recorded: dict[str, Tensor]) -> dict[str, Callable[[], Tensor]]:
    lengths, fps = recorded["lengths"], config["fps"]

    def encoded() -> Tensor:
        smoothed = recorded["features"][..., [0, 2]]
        given = recorded["local_rotations"], recorded["root_positions"]
        return features.encode_batch(*given, lengths, fps, _skeleton(config, recorded), smoothed=smoothed)

    def decoded() -> features.Decoded:
        return features.decode(recorded["features"], FeatureLayout(_skeleton(config, recorded)))

    return {
        "features": encoded,
        "local_root": lambda: local_root(recorded["features"][..., ROOT], fps, lengths),
        "decoded_joints": lambda: decoded().positions,
        "decoded_root": lambda: decoded().root,
        "decoded_contacts": lambda: decoded().contacts,
    }


def _network_outputs(weights: Path, config: dict, recorded: dict[str, Tensor]) -> dict[str, Callable[[], Tensor]]:
    model = _model(weights, config, recorded)

    def given(kind: str, weights: tuple[float, float] = (1.0, 1.0), mask: bool = True) -> GuidedDenoiser:
        constraints = (recorded["mask"].bool(), recorded["target_normalized"]) if mask else (None, None)
        conditions = (recorded["text"], recorded["first_heading"], *constraints, recorded["lengths"])
        return GuidedDenoiser(model, recorded["noisy"].shape[1], *conditions, kind=kind, weights=weights)

    def separated() -> GuidedDenoiser:
        return given("separated", tuple(config["cfg_separated"]))

    def once(denoise: GuidedDenoiser) -> Tensor:
        return denoise(recorded["noisy"], recorded["timestep"])

    return {
        "clean_pred": lambda: once(given("none")),
        "clean_pred_unconstrained": lambda: once(given("none", mask=False)),
        "guided_separated": lambda: once(separated()),
        "guided_regular": lambda: once(given("regular", (config["cfg_regular"],) * 2)),
        "ddim_sample": lambda: ddim(separated(), recorded["noisy"], _steps(config, recorded)),
    }


def _steps(config: dict, recorded: dict[str, Tensor]) -> int:
    return len(recorded["ddim_steps"]) if "ddim_steps" in recorded else config["ddim_steps"]


def _model(weights: Path, config: dict, recorded: dict[str, Tensor]) -> TwoStageDenoiser:
    statistics = (
        Statistics(recorded["feature_mean"], recorded["feature_std"]),
        Statistics(recorded["local_root_mean"], recorded["local_root_std"]),
    )
    sizes = dict(heads=config["heads"], text_slots=config["text_tokens"], fps=config["fps"])
    return load_kimodo(weights, **sizes, statistics=statistics)


def _skeleton(config: dict, recorded: dict[str, Tensor]) -> Skeleton:
    """The recording's own joints, proportions and parents, with the hips and feet of the released skeleton of that size."""
    names, parents = tuple(config["names"]), tuple(recorded["parents"].tolist())
    if len(names) not in SKELETONS:
        known = ", ".join(map(str, SKELETONS))
        raise ValueError(f"no released skeleton has {len(names)} joints; there are those of {known}.")
    known = named(SKELETONS[len(names)])
    rest = recorded["neutral_joints"]
    above = torch.tensor([max(parent, 0) for parent in parents])
    offsets = torch.where(torch.tensor(parents)[:, None] < 0, rest, rest - rest[above])

    def same(joints: tuple[str, ...]) -> tuple[str, ...]:
        return joints if set(joints) <= set(names) else tuple(names[number] for number in known.indices(joints))

    return Skeleton(known.name, names, parents, offsets, hips=same(known.hips), feet=tuple(map(same, known.feet)))
