"""Is a generated motion possible? Walls that are crossed, bodies that bend, links that stretch, turns that go back.

ZipMo's project page shows such motions (path finding, rotation, joints) without numbers; these are ours. Procedural
scenes know their walls, bodies and joints, so each measure is 0 (or 100 %) on true tracks up to rounding. None needs the
true future: several futures of a frame may all be right. `static` breaks no rule either, which is why `moved` and `passed`
stand beside the others: a rule kept by not moving is no achievement.

Departures: none to speak of, as the paper has no such table. Only scenes without camera motion are measured, because walls
and joints are facts of the world.

Shapes: samples (B, K, N, T, 2) xy in [-1, 1]; bodies (B, N) int, points of one rigid body share a number, -1 = no body;
walls (B, W, 4) boxes x0 y0 x1 y1, NaN = no wall; joints (B, J, T, 2) and link lengths (B, J - 1), NaN = absent.
Pixels are those of the protocol's 128-pixel canvas.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from kinelib.notation import ShapeError, check_finite, check_shape
from kinelib.tracks.scenes import Scenes, sample_scenes
from kinelib.zipmo.benchmark import pokes_from_tracks

CANVAS = 128  # pixels a side of the canvas on which lengths are given
GRAZE = 1.0  # pixels a path may run into a wall before it counts as crossing it
LEAST_TURN = 5.0  # degrees a body must turn back and forth in all before its turning is judged
LEAST_MOVE = 4.0  # pixels a point must have gone in the end to be poked
LEAST_POINTS = 3  # points a body must have before its shape is judged
LINK_FAMILIES = ("arm", "billiards")  # every part is a body of its own
PARTS_A_BODY = {"vehicle": 5, "orbit": 2}  # consecutive parts that make a body; elsewhere all moving parts are one
BENDING = ("deform", "camera")  # no rigid body that moves by itself


def crosses_walls(paths: Tensor, walls: Tensor, *, graze: float = GRAZE) -> Tensor:
    """Which paths run through a wall at some time, by segment between frames: (B, K, N) bool.

    Args:
        paths: (B, K, N, T, 2).
        walls: (B, W, 4).
        graze: pixels by which walls are thinned on every side first; touching is not crossing.
    """
    sizes = check_shape("paths", paths, "B K N T 2")
    check_shape("walls", walls, "B W 4", B=sizes["B"])
    check_finite("paths", paths)
    paths, walls = paths.double(), rearrange(walls.double(), "B W c -> B 1 1 1 W c")
    thin = 2 * graze / CANVAS
    low, high = walls[..., :2] + thin, walls[..., 2:] - thin
    ahead = min(1, sizes["T"] - 1)  # a single frame is a path of no length
    start = paths[..., : sizes["T"] - ahead, None, :]
    step = paths[..., ahead:, None, :] - start
    # The part of the segment between a box's two sides along each axis (slabs); a level segment is in a slab or never.
    safe = torch.where(step.abs() < 1e-12, 1e-12, step)
    one, other = (low - start) / safe, (high - start) / safe
    enter = torch.minimum(one, other).amax(-1).clamp_min(0)
    leave = torch.maximum(one, other).amin(-1).clamp_max(1)
    there = (high > low).all(-1)  # NaN and walls thinner than the graze never are
    return ((enter <= leave) & there).any(-1).any(-1)


class RigidFit(NamedTuple):
    """The best rotation and shift of a body in every frame, against the first."""

    angle: Tensor  # (B, K, T) degrees, clockwise on the screen, continuous in time
    residual: Tensor  # (B, K, T) root mean square distance from the fitted body, pixels
    size: Tensor  # (B,) root mean square distance of the body's points from their centre, pixels


def fit_rigid(samples: Tensor, members: Tensor) -> RigidFit:
    """Fits a moving body by rotation and shift, no scale (Procrustes), frame by frame.

    Args:
        samples: (B, K, N, T, 2).
        members: (B, N) bool, the body's points; values are NaN where there are fewer than 3.
    """
    sizes = check_shape("samples", samples, "B K N T 2")
    check_shape("members", members, "B N", B=sizes["B"], N=sizes["N"])
    check_finite("samples", samples)
    if members.dtype != torch.bool:
        raise ShapeError(f"members must be bool, True for a point of the body; got {members.dtype}.")
    count = members.sum(1)
    weight = rearrange(members.double() / count.clamp_min(1)[:, None], "B N -> B 1 N 1")
    points = torch.view_as_complex(samples.detach().cpu().double().contiguous()) * CANVAS / 2
    points = points - (points * weight).sum(2, keepdim=True)
    first = points[..., :1]
    turn = (first.conj() * points * weight).sum(2)
    turn = turn / turn.abs().clamp_min(1e-12)
    residual = ((points - turn[:, :, None] * first).abs().square() * weight).sum(2).sqrt()
    # Sums of small turns are continuous where the angle itself would jump at 180 degrees.
    step = (turn[..., 1:] * turn[..., :-1].conj()).angle().rad2deg()
    angle = torch.cat([torch.zeros_like(residual[..., :1]), step.cumsum(-1)], dim=-1)
    size = (first[:, 0, :, 0].abs().square() * weight[:, 0, :, 0]).sum(1).sqrt()
    few = count < LEAST_POINTS
    blank = lambda values: torch.where(few.reshape(-1, *[1] * (values.ndim - 1)), torch.nan, values)
    return RigidFit(blank(angle), blank(residual), blank(size))


def rigidity_error(samples: Tensor, bodies: Tensor) -> tuple[Tensor, Tensor]:
    """How far bodies are from keeping their shape, averaged over frames and bodies (by their points): two (B, K).

    Args:
        samples: (B, K, N, T, 2).
        bodies: (B, N) int.

    Returns:
        root mean square distance from the fitted rigid body in pixels, and the same in percent of the body's own size.
    """
    total = relative = weight = torch.zeros(samples.shape[:2], dtype=torch.float64)
    for body in bodies[bodies >= 0].unique().tolist():
        members = bodies == body
        fit = fit_rigid(samples, members)
        known = ~torch.isnan(fit.size)[:, None]
        error = fit.residual.mean(-1)
        points = members.sum(1, keepdim=True) * known
        total = total + torch.where(known, error, 0) * points
        relative = relative + torch.where(known, 100 * error / fit.size[:, None].clamp_min(1e-9), 0) * points
        weight = weight + points
    return total / weight, relative / weight


def turning_consistency(angle: Tensor) -> Tensor:
    """How much of all turning goes one way: 100 % never turns back, 0 % ends as it began; (B, K, T) degrees -> (B, K).

    NaN where a body turns by less than 5 degrees in all.
    """
    check_shape("angle", angle, "B K T")
    all_turns = angle.diff(dim=-1).abs().sum(-1)
    share = 100 * (angle[..., -1] - angle[..., 0]).abs() / all_turns.clamp_min(1e-9)
    return torch.where(all_turns < LEAST_TURN, torch.nan, share)


def link_length_error(joints: Tensor, lengths: Tensor) -> Tensor:
    """By how many percent links are longer or shorter than they are, averaged over frames and links: (B, K).

    Args:
        joints: (B, K, J, T, 2) sampled positions of neighbouring joints; what absent ones hold is not read.
        lengths: (B, J - 1), NaN for an absent link.
    """
    sizes = check_shape("joints", joints, "B K J T 2")
    check_shape("lengths", lengths, "B L", B=sizes["B"], L=sizes["J"] - 1)
    length = rearrange(lengths.double(), "B L -> B 1 L 1")
    change = 100 * ((joints.double().diff(dim=2).norm(dim=-1) - length) / length).abs()
    return change.mean(-1).nanmean(-1)


def bodies_of(scenes: Scenes) -> Tensor:
    """(B, N) int: which rigid body a scene's point belongs to; -1 for background, scenery and things that bend."""
    bodies = torch.where(scenes.on_object, scenes.object_index, -1)
    for row, family in enumerate(scenes.family):
        if family in BENDING:
            bodies[row] = -1
        elif family not in LINK_FAMILIES:
            # The star comes before the comets and never moves, so a comet's parts are 1 and 2, then 3 and 4.
            first = int(family == "orbit")
            together = (bodies[row] - first) // PARTS_A_BODY.get(family, 1000)
            bodies[row] = torch.where(bodies[row] < 0, -1, together)
    return bodies


def still_camera_scenes(count: int, seed: int, family: str) -> Scenes:
    """The first `count` scenes of a family in which the camera does not move; raises ValueError for "camera"."""
    if family == "camera":
        raise ValueError('in the "camera" family the camera always moves; choose another family.')
    scenes = sample_scenes(count + 8 + count // 2, seed, families=(family,))
    return scenes[torch.nonzero(~scenes.facts["camera"])[:count, 0]]


class Questions(NamedTuple):
    """What is asked of a forecast: the scene's points, then the main part's centre, then the joints."""

    points: Tensor  # (B, Q, 2) query points
    truth: Tensor  # (B, Q, T, 2) their true tracks


def questions(scenes: Scenes) -> Questions:
    """The query points at which a scene's motion is judged, and where they truly go; absent joints stand at the centre."""
    facts = scenes.facts
    centre = facts["centre"][:, None]
    joints = torch.where(torch.isnan(facts["joints"]), centre, facts["joints"])
    truth = torch.cat([scenes.tracks.xy, centre, joints], dim=1)
    return Questions(truth[:, :, 0], truth)


def measure(samples: Tensor, scenes: Scenes) -> dict[str, Tensor]:
    """Every measure that the scenes' facts allow, averaged over the K samples: name -> (B,), NaN where undefined.

    `moved` pixels that body points are away from their starts in the end, on average; `rigidity` pixels and
    `rigidity_relative` %; `turn` degrees and `turning` % of the body with most points; `crossed` % of futures whose body
    centre goes through a wall, `touched` % where any body point does, `passed` % that are beyond the first wall at the end
    without having crossed one; `link` % of length.

    Args:
        samples: (B, K, Q, T, 2) at the points of `questions(scenes)`.
        scenes: without camera motion.

    Raises:
        ShapeError: when the points are not those of `questions`, or a camera moves.
    """
    points, joints = scenes.tracks.num_points, scenes.facts["joints"].shape[1]
    check_shape("samples", samples, "B K Q T 2", B=len(scenes), Q=points + 1 + joints)
    if scenes.facts["camera"].any():
        raise ShapeError("plausibility needs scenes whose camera stands still; use still_camera_scenes.")
    bodies = bodies_of(scenes)
    body, centre = samples[:, :, :points], samples[:, :, points]
    moved = (body[..., -1, :] - body[..., 0, :]).norm(dim=-1).double() * CANVAS / 2
    members = (bodies >= 0)[:, None]
    pixels, relative = rigidity_error(body, bodies)
    # A row without bodies has the mode of nothing; 0 then matches none of its points.
    largest = torch.stack([row[row >= 0].mode().values if (row >= 0).any() else row.new_zeros(()) for row in bodies])
    angle = fit_rigid(body, bodies == largest[:, None]).angle
    walls = scenes.facts["walls"]
    has_walls = ~torch.isnan(walls[:, 0, 0])
    crossed = crosses_walls(centre[:, :, None], walls)[:, :, 0]
    touched = (crosses_walls(body, walls) & members).any(-1)
    # The flag lies beyond the walls along `direction`; the first box belongs to the nearest wall.
    forward = rearrange(scenes.facts["direction"], "B c -> B 1 c")
    first_wall = rearrange(walls[:, 0], "B (corner c) -> B corner c", corner=2).mean(1, keepdim=True)
    beyond = ((centre[:, :, -1] - first_wall) * forward).sum(-1) > 0
    per_future = {
        "moved": (moved * members).sum(-1) / members.sum(-1),
        "rigidity": pixels,
        "rigidity_relative": relative,
        "turn": angle[..., -1].abs(),
        "turning": turning_consistency(angle),
        "crossed": torch.where(has_walls[:, None], 100.0 * crossed, torch.nan),
        "touched": torch.where(has_walls[:, None], 100.0 * touched, torch.nan),
        "passed": torch.where(has_walls[:, None], 100.0 * (beyond & ~crossed), torch.nan),
        "link": link_length_error(samples[:, :, points + 1 :], scenes.facts["joint_lengths"]),
    }
    return {name: values.double().nanmean(1) for name, values in per_future.items()}


def body_pokes(scenes: Scenes, count: int) -> tuple[Tensor, Tensor]:
    """Pokes (B, P, 5) and mask on the first `count` points of moving bodies, from first to last true position."""
    bodies, end = bodies_of(scenes) >= 0, scenes.tracks.displacement()[:, :, -1].norm(dim=-1)
    moving = bodies & (end * CANVAS / 2 > LEAST_MOVE)
    # A poke on a hub or a resting link would ask for stillness; only where too little moves, any body's point will do.
    allowed = torch.where((moving.sum(1) >= count)[:, None], moving, bodies)
    pokes, mask, _ = pokes_from_tracks(scenes.tracks.xy, count, allowed=allowed)
    return pokes, mask


def evaluate_plausibility(
    forecaster: Callable[..., Tensor],
    scenes: Scenes,
    counts: Sequence[int] = (0, 1, 2),
    *,
    samples: int = 8,
    seed: int = 43,
    batch: int = 32,
) -> dict[int, dict[str, Tensor]]:
    """Measures a forecaster's futures for several numbers of pokes on moving bodies: count -> measure -> (B,).

    Args:
        forecaster: called as in `forecast`.
        scenes: without camera motion.
        counts: numbers of pokes.
        samples: K.
        seed: of the noise.
        batch: clips a call.
    """
    from kinelib.learning.image import to_model_frame

    size = scenes.first_frame.shape[1]
    frame, asked = to_model_frame(scenes.first_frame, size), questions(scenes)
    table = {}
    for count in counts:
        pokes, mask = body_pokes(scenes, count)
        parts = []
        for start in range(0, len(scenes), batch):
            rows = slice(start, start + batch)
            given = (frame[rows], pokes[rows], mask[rows], asked.points[rows])
            futures = forecaster(*given, num_frames=asked.truth.shape[2], samples=samples, seed=seed)
            parts.append(measure(futures, scenes[rows]))
        table[count] = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return table


def measure_truth(scenes: Scenes) -> dict[str, Tensor]:
    """The measures of the true tracks: what is possible, and a check of the measures themselves."""
    return measure(questions(scenes).truth[:, None], scenes)
