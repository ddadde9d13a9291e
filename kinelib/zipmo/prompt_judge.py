"""Reads from tracks alone what happened in a scene: the questions that prompts answer, and their judge.

A case is a first frame, the caption of one of its futures, and a question about what that caption says: which way, which
turn, which part, which path, camera or object. The camera's motion is taken out with the scenery, then parts are measured.
The judge is ours; the tests hold it to the true tracks of named futures.

Shapes: tracks (K, N, T, 2) of K samples at the N start points of a case; complex numbers x + iy stand for points inside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from kinelib.notation import check_shape
from kinelib.zipmo.prompt_words import WORDS

NONE = -1  # the judge's answer when nothing that was asked about happened
STILL = 0.04  # displacement of the scenery, in half frames, below which the camera stands still
DEGREE = np.pi / 180


@dataclass(frozen=True)
class PromptCase:
    """A held-out first frame, a sentence about one of its futures, and a question with a known answer."""

    family: str  # of the scene
    question: str  # key of QUESTIONS
    wording: str  # one of WORDINGS
    right: int  # index of the option that the prompt names
    other: int  # index of the option that the other prompt names
    prompt: str
    other_prompt: str  # about another future of the same first frame
    frame: Tensor  # (3, S, S) in [-1, 1]
    truth: Tensor  # (N, T, 2) tracks of the future that the prompt is about
    other_truth: Tensor  # (N, T, 2) tracks of the other prompt's future
    part: np.ndarray  # (N,) index of the part each point is fixed to, -1 the background
    scenery: np.ndarray  # (N,) bool: only the camera moves the point
    facts: dict[str, np.ndarray]  # what the scene generator knows about the first frame

    @property
    def options(self) -> tuple[str, ...]:
        """The possible answers."""
        return QUESTIONS[self.question].options

    @property
    def category(self) -> str:
        """What kind of question it is."""
        return QUESTIONS[self.question].category


class Seen:
    """What the judge sees of (K, N, T, 2) tracks: the camera's motion, and the tracks with it taken out."""

    def __init__(self, tracks: Tensor, case: PromptCase):
        self.case, self.facts = case, case.facts
        self.screen = np.ascontiguousarray(tracks.detach().cpu().double().numpy()).view(complex)[..., 0]
        scenery = np.ones_like(case.scenery) if case.question == "camera" else case.scenery
        self.zoom, self.shift = similarity(self.screen[:, scenery])
        self.world = (self.screen - self.shift[:, None]) / self.zoom[:, None]

    def of(self, *parts: int) -> np.ndarray:
        """(K, n, T) camera-free tracks of the points on these parts; parts that the frame does not show add none."""
        return self.world[:, np.isin(self.case.part, parts)]

    def moved(self, *parts: int) -> np.ndarray:
        """(K, T) mean displacement of parts since the first frame."""
        tracks = self.of(*parts)
        return (tracks - tracks[..., :1]).mean(1)

    def turned(self, *parts: int) -> np.ndarray:
        """(K, T) angle in radians, clockwise on the screen, by which parts have turned as one body; 0 for < 3 points."""
        tracks = self.of(*parts)
        if tracks.shape[1] < 3:
            return np.zeros((len(tracks), tracks.shape[-1]))
        return np.unwrap(np.angle(similarity(tracks)[0]), axis=-1)


def similarity(tracks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares z -> zoom * z + shift from the first frame to every frame of (K, n, T) tracks; both (K, T) complex."""
    first = tracks[..., :1]
    middle, first_middle = tracks.mean(1), first.mean(1)
    rest = first - first_middle[:, None]
    zoom = (rest.conj() * (tracks - middle[:, None])).sum(1) / np.maximum((abs(rest) ** 2).sum(1), 1e-12)
    return zoom, middle - zoom * first_middle


def judge(tracks: Tensor, case: PromptCase) -> Tensor:
    """Which option each of K forecasts shows, from the tracks alone: (K,) indices into `case.options`, -1 for none.

    Args:
        tracks: (K, N, T, 2) at the case's points, N in their order.
        case: the question.

    Raises:
        ShapeError: when the tracks are not of the case's points.
    """
    check_shape("tracks", tracks, "K N T 2", N=len(case.part))
    return torch.from_numpy(np.asarray(QUESTIONS[case.question].judge(Seen(tracks, case)), dtype=np.int64))


def _three(value: np.ndarray, limit: float) -> np.ndarray:
    """0, 1 or 2 for values below -limit, in between, above limit."""
    return (value > -limit).astype(int) + (value > limit)


def _sense(value: np.ndarray, least: float = 5 * DEGREE) -> np.ndarray:
    """0 for clockwise (positive), 1 for counter-clockwise, NONE for less than `least`."""
    return np.where(abs(value) < least, NONE, (value < 0).astype(int))


def _joints(seen: Seen) -> np.ndarray:
    """(K, 3) the largest turn of shoulder, elbow and wrist, signed."""
    # Parts of an arm: 3, 2 and 1 are its links, 7, 6 and 5 the discs that turn with them, 4 the hand on the last link.
    three = np.isfinite(seen.facts["joint_lengths"][2])
    links = [seen.turned(3, 7), seen.turned(2, 6, *([] if three else [4])), seen.turned(1, 5, 4) if three else None]
    turns = np.stack([links[0], links[1] - links[0], links[2] - links[1] if three else 0 * links[0]], 1)
    peak = abs(turns).argmax(-1)
    return np.take_along_axis(turns, peak[..., None], -1)[..., 0]


def _joint(seen: Seen) -> np.ndarray:
    turns = abs(_joints(seen))
    return np.where(turns.max(1) < 10 * DEGREE, NONE, turns.argmax(1))


def _joint_sense(seen: Seen) -> np.ndarray:
    turns = _joints(seen)
    return _sense(np.take_along_axis(turns, abs(turns).argmax(1)[:, None], 1)[:, 0])


def _orbit(seen: Seen) -> np.ndarray:
    # The comet's frame has x along the clockwise tangent of its circle around the star.
    comet = seen.facts["centre"] @ [1, 1j]
    star = comet + 1j * seen.facts["radius"] * np.exp(1j * seen.facts["angle"])
    swept = np.unwrap(np.angle((comet + seen.moved(1, 2) - star) / (comet - star)), axis=-1)
    return _sense(swept[:, -1])


def _gates(seen: Seen) -> np.ndarray:
    """0 left, 1 right; with two walls 2 * first + second."""
    forward = seen.facts["direction"] @ [1, 1j]
    agent = (seen.facts["centre"] @ [1, 1j] + seen.moved(*range(seen.facts["main"], seen.facts["main"] + 2))) / forward
    walls = (seen.facts["walls"][:, :2] + seen.facts["walls"][:, 2:]) @ [1, 1j] / 2 / forward
    answer = np.zeros(len(agent), int)
    for place in walls.real[[0, 3]]:
        if np.isfinite(place):
            near = abs(agent.real - place).argmin(1)[:, None]
            at = np.take_along_axis(agent, near, 1)[:, 0]
            there = (abs(at.real - place) < 0.12) & (answer != NONE)
            answer = np.where(there, 2 * answer + (at.imag > 0), NONE)
    return answer


def _view(seen: Seen) -> np.ndarray:
    pan, zoom, roll = (-seen.shift / seen.zoom)[:, -1], np.log(abs(seen.zoom[:, -1])), np.angle(seen.zoom[:, -1])
    # In units of what the camera typically does, so that pans, zooms and rolls compare.
    signed = np.stack([-pan.real / 0.57, -pan.imag / 0.57, zoom / 0.45, roll / (47 * DEGREE)], 1)
    scores = rearrange(np.stack([signed, -signed], -1), "k a s -> k (a s)")
    return np.where(scores.max(1) < 0.2, NONE, scores.argmax(1))


def _drift(seen: Seen) -> np.ndarray:
    start = seen.screen[:, seen.case.scenery, 0]
    moved = abs((seen.zoom[:, None] - 1) * start[..., None] + seen.shift[:, None]).mean(1)
    return (moved.max(-1) < STILL).astype(int)


def _roll(seen: Seen) -> np.ndarray:
    way = (seen.moved(1, 2, 3, 4) * (seen.facts["direction"] @ [1, -1j])).real
    down = np.where(way[:, -1] > 0.63, 0, np.where(way[:, -1] > 0.1, 1, NONE))
    return np.where(way.min(1) < -0.08, 2, down)


def _bounce(seen: Seen) -> np.ndarray:
    answers = []
    for height in -seen.moved(2).imag:
        low = height < height.min() + 0.1 * np.ptp(height)
        # The first contact: where the ball, first close to the ground, starts to rise.
        first = int(low.argmax())
        while first + 1 < len(height) and height[first + 1] < height[first]:
            first += 1
        fall = height[: first + 1].max() - height[first]
        rebound = height[first:].max() - height[first]
        # Rebound height over fall is restitution squared; 0.63 lies between the dull and the bouncy balls.
        answers.append(NONE if fall < 0.1 else int(rebound > 0.63**2 * fall))
    return np.array(answers)


def _billiards(seen: Seen) -> np.ndarray:
    others = [abs(seen.moved(part)).max(-1) for part in (2, 3) if (seen.case.part == part).any()]
    struck = abs(seen.moved(1)).max(-1)
    hit = np.max([np.zeros_like(struck), *others], axis=0) > 0.03
    return np.where(hit, 1, np.where(struck > 0.1, 0, NONE))


@dataclass(frozen=True)
class Question:
    """A question about a scene's future, and how the answer is read from tracks."""

    category: str
    options: tuple[str, ...]  # as they stand in scene labels
    said: dict[str, tuple[tuple[str, ...], ...]]  # by wording and option: sentences that mean it, {c} standing for a colour
    judge: Callable[[Seen], np.ndarray]  # (K,) index of the option, or NONE


_JUDGES: dict[str, Callable[[Seen], np.ndarray]] = {
    "vehicle": lambda seen: _three(seen.turned(0, 1, 2, 3, 4)[:, -1], 25 * DEGREE),
    "roll": _roll,
    "rigid": lambda seen: _three(seen.turned(0, 1, 2, 3)[:, -1], 20 * DEGREE),
    "orbit": _orbit,
    "spinner": lambda seen: _sense(seen.turned(1, 2, 3, 4, 5)[:, -1]),
    "arm-sense": _joint_sense,
    "arm-2-joints": _joint,
    "arm-3-joints": _joint,
    "billiards": _billiards,
    "maze": _gates,
    "maze-2": _gates,
    "bounce": _bounce,
    "camera": _view,
    "drift": _drift,
}
QUESTIONS = {key: Question(*words, _JUDGES[key]) for key, words in WORDS.items()}


def answers(family: str, label: str, camera: bool, three: bool) -> dict[str, str]:
    """Question to option, for all that a scene's label answers; `three` tells an arm with three links."""
    mode = label.split("/")[1]
    first, _, second = mode.partition("-")
    said = {family: mode} if family in QUESTIONS else {}
    if family == "arm":
        said = {f"arm-{3 if three else 2}-joints": first, "arm-sense": second}
    elif family == "billiards":
        said = {family: "miss" if mode == "miss" else "hit"}
    elif family == "maze" and second:
        said = {"maze-2": mode}
    return said if family == "camera" else said | {"drift": "drifts" if camera else "still"}
