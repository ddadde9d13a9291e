"""Motion longer than one window: the next window starts where the last one ended, on a warped first frame.

ZipMo's project page shows long motions without saying how. A model conditioned on a picture needs one for every window, and
kinematics renders none, so the picture is *warped*: every pixel of the window's first frame is carried to where the decoded
motion puts it (forward splatting in which what moved more lies in front), and what that uncovers is filled with the colours
around it. A warped frame is not a rendering: what was hidden stays unknown, edges smear a little every window, and a thing
that left the frame does not return.

Velocity is carried over by pokes: some fast points are asked to go on for a moment as they went. The model may still jump;
`seam_jumps` says by how much, beside what happens inside windows, and `carry=0` turns the pokes off.

Shapes: B clips, K samples, W windows of T frames, F = W (T - 1) + 1 frames in all (windows share their seam frame);
frames (B, 3, S, S); tracks (B, K, Q, F, 2) xy in [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from kinelib.notation import ShapeError, cell_centres, check_finite, check_shape, to_pixels

FRONT = 8.0  # how strongly what moves more hides what moves less, per unit of displacement
SOLID = 0.3  # share of the dots of a pixel at rest, below which a pixel counts as uncovered
QUIET = 0.25  # share of the largest displacement up to which a pixel counts as staying behind


@dataclass(frozen=True)
class LongMotion:
    """A motion of several windows.

    Args:
        tracks: (B, K, Q, F, 2); a point that is outside the frame at a seam stays where it left.
        inside: (B, K, Q, F) bool: False from the seam on at which a point was outside.
        first_frames: (B, K, W, 3, S, S): the frame each window started from; the first is real, the others are warped.
        seams: the W - 1 frame numbers that two windows share.
        fps: frames a second that were assumed; the model itself knows windows only.
    """

    tracks: Tensor
    inside: Tensor
    first_frames: Tensor
    seams: tuple[int, ...]
    fps: float

    @property
    def seconds(self) -> float:
        """How long the motion takes at `fps`."""
        return (self.tracks.shape[3] - 1) / self.fps


def windows_for(seconds: float, fps: float = 24.0, num_frames: int = 64) -> int:
    """How many windows of `num_frames` frames it takes to reach `seconds`; raises ValueError for numbers out of range."""
    if not (seconds > 0 and fps > 0 and num_frames >= 2):
        raise ValueError(
            f"seconds and fps must be positive, a window has 2 frames or more; got {seconds}, {fps}, {num_frames}."
        )
    return max(1, math.ceil(round(seconds * fps / (num_frames - 1), 9)))


def warp_frame(frame: Tensor, end: Tensor, finer: int = 3) -> Tensor:
    """Carries every pixel of frames (B, 3, S, S) to where a dense motion puts it: (B, 3, S, S), "the warped frame".

    A pixel travels as finer x finer dots of its colour, and a pixel's new colour is the average of the dots it receives:
    no motion leaves the picture exactly as it is, so that many windows do not blur what stands still.

    Args:
        frame: in [-1, 1].
        end: (B, S, S, 2) where the point at each pixel's centre ends, xy; row by row.
        finer: dots a side of a pixel, which is how finely places between pixels are told apart.
    """
    size = check_shape("frame", frame, "B 3 S S")["S"]
    check_shape("end", end, "B S S 2", B=len(frame), S=size)
    check_finite("end", end)
    if finer < 1:
        raise ValueError(f"finer is the number of dots a side of a pixel, at least 1; got {finer}.")
    fine = finer * size
    rest = rearrange(cell_centres(size, size, frame.device), "(h w) c -> c h w", h=size)
    # A pixel travels as one piece: motion interpolated across an object's edge would draw streaks of it along its way.
    dots = lambda x: interpolate(x, (fine, fine), mode="nearest")
    moved = dots(rearrange(end, "b h w c -> b c h w") - rest)
    start = rearrange(cell_centres(fine, fine, frame.device), "(h w) c -> c h w", h=fine)
    place = to_pixels(rearrange(start + moved, "b c h w -> b (h w) c"), size, size).floor()
    colour = rearrange(dots(frame), "b c h w -> b (h w) c")
    received = ((place >= 0) & (place < size)).all(-1).to(frame)
    index = (place.clamp(0, size - 1) * place.new_tensor([1, size])).sum(-1).long()
    far = rearrange(moved.norm(dim=1), "b h w -> b (h w)")
    # Among the dots of one pixel, those that moved further are weighted up.
    front = received * (FRONT * far).clamp_max(30).exp()
    gather = lambda x: torch.zeros_like(frame[:, 0]).flatten(1).scatter_add(1, index, x)
    weight, cover, travelled = gather(front), gather(received), gather(front * far)
    total = torch.stack([gather(front * colour[..., channel]) for channel in range(3)], dim=-1)
    shape = lambda x: rearrange(x, "b (h w) ... -> b ... h w", h=size)
    known = shape(cover > SOLID * finer**2)[:, None]
    picture = shape(total / weight.clamp_min(1e-9)[..., None])
    # What a thing uncovers looks like what stays behind, not like the thing: fill from pixels that moved little.
    quiet = known & (shape(travelled / weight.clamp_min(1e-9))[:, None] <= QUIET * reduce(far, "b m -> b 1 1 1", "max"))
    source = torch.where(quiet.flatten(1).any(1)[:, None, None, None], quiet, known).to(frame)
    return torch.where(known, picture, _fill(picture * source, source)).clamp(-1, 1)


def _fill(picture: Tensor, known: Tensor) -> Tensor:
    """Colours for unknown pixels from the known ones around them: averages over ever larger squares, coarse to fine."""
    if min(picture.shape[-2:]) == 1:
        return picture / known.clamp_min(1e-6)
    smaller = lambda x: avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
    coarse, coarse_known = smaller(picture), smaller(known)
    # Half a square's colours are as good as all of them, so a coarse pixel is known as soon as any part of it is.
    part = (coarse_known > 0).to(known)
    coarse = coarse / coarse_known.clamp_min(1e-6) * part
    whole = torch.where(part > 0, coarse, _fill(coarse, part))
    return interpolate(whole, picture.shape[-2:], mode="bilinear")


def carry_pokes(tracks: Tensor, count: int, look_back: int = 4, ahead: int = 6) -> tuple[Tensor, Tensor]:
    """Pokes that ask fast points to go on as they went: (M, P, 5) and mask (M, P), P = max(count, 1).

    The fastest point is taken first, then fast ones far from those taken. Points that are outside the frame, or would leave
    it, and points slower than a tenth of the fastest are not asked.

    Args:
        tracks: (M, Q, T, 2) the window that ended, T >= 2.
        count: pokes a clip at most, 0 for none.
        look_back: frames over which the last velocity is read.
        ahead: frames after which the goals lie.
    """
    sizes = check_shape("tracks", tracks, "M Q T 2")
    if sizes["T"] < 2 or count < 0 or look_back < 1 or ahead < 1:
        raise ShapeError(f"velocity needs 2 frames, and count 0 or more; got T={sizes['T']}, count={count}.")
    back, ahead = min(look_back, sizes["T"] - 1), min(ahead, sizes["T"] - 1)
    last = tracks[:, :, -1]
    velocity = (last - tracks[:, :, -1 - back]) / back
    goal = last + ahead * velocity
    speed = velocity.norm(dim=-1)
    fit = (last.abs().amax(-1) < 1) & (goal.abs().amax(-1) < 1) & (speed > 0.1 * speed.amax(1, keepdim=True))
    time = torch.full_like(speed, ahead / (sizes["T"] - 1))[..., None]
    candidates = torch.cat([last, goal, time], dim=-1)
    far, pokes, mask = torch.ones_like(speed), [], []
    for _ in range(count):
        score = torch.where(fit, speed * far, -1.0)
        best = score.argmax(dim=1, keepdim=True)
        pokes.append(candidates.gather(1, repeat(best, "m 1 -> m 1 c", c=5)))
        mask.append(score.gather(1, best) > 0)
        chosen = last.gather(1, repeat(best, "m 1 -> m 1 c", c=2))
        far = torch.minimum(far, (last - chosen).norm(dim=-1) / 2)
    if not count:
        return tracks.new_zeros(len(tracks), 1, 5), torch.zeros(len(tracks), 1, dtype=torch.bool, device=tracks.device)
    mask = torch.cat(mask, dim=1)
    harmless = last.new_tensor([0, 0, 0, 0, 1.0])
    return torch.where(mask[..., None], torch.cat(pokes, dim=1), harmless), mask


@torch.no_grad()
def extend(
    forecast: Callable[..., Tensor],
    frame: Tensor,
    pokes: Tensor,
    mask: Tensor,
    query_points: Tensor,
    *,
    windows: int | None = None,
    seconds: float = 10.0,
    fps: float = 24.0,
    num_frames: int = 64,
    samples: int = 1,
    seed: int = 0,
    carry: int = 3,
    steer: Callable[[int, Tensor], tuple[Tensor, Tensor]] | None = None,
) -> LongMotion:
    """Chains windows of a forecaster; see the module docstring.

    Args:
        forecast: any forecaster, called as in `forecast`.
        frame: (B, 3, S, S).
        pokes, mask: (B, P, 5), (B, P) of the first window, whose time 1 is the end of that window.
        query_points: (B, Q, 2) inside the frame.
        windows: how many; default as many as `seconds` take.
        seconds, fps: see `windows_for`; fps is what a frame is taken to last, the model does not know it.
        num_frames: T of a window.
        samples: K; each goes its own way from the first window on.
        seed: of the noise; window w uses seed + w.
        carry: pokes a window that carry the velocity over.
        steer: called before windows 2, 3, ... with that number and all positions (B * K, Q, 2) at its start; returns
            further pokes (B * K, P, 5) and mask for it.

    Raises:
        ShapeError: on wrong shapes or points outside the frame.
        ValueError: when there is no window, or a number is out of range.
    """
    batch = check_shape("query_points", query_points, "B Q 2")["B"]
    size = check_shape("frame", frame, "B 3 S S", B=batch)["S"]
    windows = windows_for(seconds, fps, num_frames) if windows is None else windows
    if windows < 1 or samples < 1 or num_frames < 2 or carry < 0:
        raise ValueError(
            f"windows and samples start at 1, num_frames at 2, carry at 0; got {windows}, {samples}, {num_frames}."
        )
    if query_points.abs().max() > 1:
        raise ShapeError("query points must lie inside the frame, where the picture can say what they are.")
    count = query_points.shape[1]
    grid = cell_centres(size, size, frame.device)
    inside = torch.ones(batch * samples, count, dtype=torch.bool, device=frame.device)
    position, pieces, kept, pictures = query_points, [], [], []
    for window in range(windows):
        # The first window draws K futures of B clips; from then on each of the B * K has a frame of its own.
        many = 1 if window else samples
        last_window = window == windows - 1
        asked = position if last_window else torch.cat([position, repeat(grid, "m c -> b m c", b=len(frame))], dim=1)
        answer = forecast(frame, pokes, mask, asked.clamp(-1, 1), num_frames=num_frames, samples=many, seed=seed + window)
        if answer.shape[1] != many:
            raise ShapeError(f"this forecaster gives {answer.shape[1]} sample(s), not {many}; ask for samples=1.")
        answer, frame, position = rearrange(answer, "b k q t c -> (b k) q t c"), _again(frame, many), _again(position, many)
        tracks = torch.where(inside[:, :, None, None], answer[:, :count], position[:, :, None])
        pictures.append(frame)
        pieces.append(tracks if last_window else tracks[:, :, :-1])
        kept.append(repeat(inside, "m q -> m q t", t=pieces[-1].shape[2]))
        if last_window:
            break
        position = tracks[:, :, -1]
        inside = inside & (position.abs().amax(-1) <= 1)
        end = rearrange(answer[:, count:, -1], "m (h w) c -> m h w c", h=size)
        frame = warp_frame(frame, end)
        pokes, mask = carry_pokes(torch.where(inside[:, :, None, None], tracks, 2.0), carry)
        if steer is not None:
            more = steer(window + 2, position)
            pokes, mask = torch.cat([more[0], pokes], dim=1), torch.cat([more[1], mask], dim=1)
    by_clip = lambda x: rearrange(x, "(b k) ... -> b k ...", k=samples)
    return LongMotion(
        tracks=by_clip(torch.cat(pieces, dim=2)),
        inside=by_clip(torch.cat(kept, dim=2)),
        first_frames=by_clip(torch.stack(pictures, dim=1)),
        seams=tuple((num_frames - 1) * window for window in range(1, windows)),
        fps=fps,
    )


def _again(values: Tensor, times: int) -> Tensor:
    return values if times == 1 else repeat(values, "b ... -> (b k) ...", k=times)


def seam_jumps(motion: LongMotion, moving: float = 2.0) -> dict[str, float]:
    """How much velocity changes from frame to frame at the seams, beside inside windows, pixels at 128 a frame.

    Args:
        motion: at least two windows.
        moving: pixels at 128 a point must be away from its start at some time to count.

    Returns:
        `seam` mean change of velocity at the seams, `inside` the mean elsewhere, `inside_99` its 99th percentile, `speed`
        the mean speed, `points` how many count. NaN where nothing moves.

    Raises:
        ShapeError: when there is no seam, or a window has fewer than 3 frames.
    """
    frames = motion.tracks.shape[3]
    if not motion.seams or motion.seams[0] < 2:
        raise ShapeError("a jump is measured at a seam between two windows of at least 3 frames.")
    pixels = 64 * motion.tracks.detach().cpu().double()
    away = (pixels - pixels[..., :1, :]).norm(dim=-1).amax(-1)
    counted = (away > moving) & motion.inside[..., -1].cpu()
    velocity = pixels.diff(dim=3)[counted]
    change = velocity.diff(dim=1).norm(dim=-1)
    # Change number i compares the steps before and after frame i + 1.
    at_seam = torch.zeros(frames - 2, dtype=torch.bool)
    at_seam[[seam - 1 for seam in motion.seams]] = True
    within = change[:, ~at_seam]
    return {
        "seam": float(change[:, at_seam].mean()),
        "inside": float(within.mean()),
        "inside_99": float(within.flatten().quantile(0.99)) if within.numel() else math.nan,
        "speed": float(reduce(velocity.norm(dim=-1), "p t -> p", "mean").mean()),
        "points": int(counted.sum()),
    }


def window_ends(motion: LongMotion) -> Tensor:
    """The numbers of each window's last frame, (W,): where drift is read, for example with `rigidity_error`."""
    return torch.tensor([*motion.seams, motion.tracks.shape[3] - 1])
