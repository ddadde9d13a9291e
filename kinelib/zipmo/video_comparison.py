"""Motion latents against a video model: both forecast, its videos are tracked, and both are scored by one protocol.

Paper: section 4, the comparison with Wan and Veo 3. The video model is given the first and the last frame, ours the first
frame and pokes; tracks are read off the generated videos with a tracker, whose drift and losses count against them.
Two comparisons: *sample-matched*, K samples each, and *time-matched*, one video against as many of our samples as fit in
its wall-clock time. Cost has two axes, both measured in the same run: seconds and floating-point operations a sample.

Additions, because a score of tracked videos mixes the video with the tracker: the *true* video tracked (what a perfect video
model would score), the linear blend of both frames tracked (what an untrained one scores), `static` and `linear`; and all
errors once more on *trackable* points only, those that the tracker follows in the true video.

Shapes: videos (B, K, F, 3, S, S) in [-1, 1]; tracks (B, K, N, T, 2), xy in [-1, 1]; truth (B, N, T, 2).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from kinelib.learning.files import write_text_whole
from kinelib.learning.intervals import Interval, summarize
from kinelib.learning.profiles import Profile, profile
from kinelib.notation import ShapeError, check_shape
from kinelib.tracks.scenes import sample_scenes
from kinelib.tracks.timing import resample_time
from kinelib.tracks.trackers import track_points
from kinelib.zipmo import baselines
from kinelib.zipmo.benchmark import pokes_from_tracks
from kinelib.zipmo.data import TEST_SEED
from kinelib.zipmo.evaluation_data import SCORED, moving_points
from kinelib.zipmo.pretrained import load_latent, load_stage
from kinelib.zipmo.protocol import generation_metrics
from kinelib.zipmo.video_model import VideoFlowMatcher, scene_videos

TRACKABLE = 2.0  # pixels at 128 the tracker may be off on average, in the true video, on a point that counts as trackable
SCENES = {Profile.SMOKE: 8, Profile.LAB: 64, Profile.PAPER: 256}  # held-out, by profile
METRICS = ("min_mse", "mean_mse", "epe", "min_mse_trackable", "mean_mse_trackable")


@dataclass(frozen=True)
class Settings:
    """How to compare."""

    samples: int = 8  # K of both in the sample-matched comparison
    pokes: int = 8  # what our forecaster is told, the counterpart of the last frame
    cap: int = 64  # most samples of ours in the time-matched comparison
    steps: int = 6  # Euler steps of the video model
    tracker: str = "lk"  # see `tracks.trackers`
    side: int = 128  # pixels that videos are enlarged to before tracking, as far as they are smaller
    rounds: int = 3  # repetitions of every timing, of which the fastest counts
    seed: int = 43  # of the noise, as in the paper's benchmark
    batch: int = 4  # clips whose K videos are drawn together


@dataclass(frozen=True)
class Pair:
    """The same scenes as video and as tracks."""

    videos: Tensor  # uint8 (B, F, 3, S, S)
    tracks: Tensor  # (B, N, T, 2), of which the first `SCORED` are scored

    @property
    def frames(self) -> Tensor:
        """The videos in [-1, 1]."""
        return self.videos.float() / 127.5 - 1


@dataclass(frozen=True)
class Cost:
    """What a sample costs, drawn alone and in a batch."""

    alone: float  # seconds for one sample of one clip
    batched: float  # seconds for K samples of one clip, over K
    operations: float  # floating-point operations of a sample in that batch: matrix products, convolutions, attention


@dataclass(frozen=True)
class Row:
    """One line of the comparison."""

    comparison: str  # "sample-matched", "time-matched" or "control"
    method: str
    samples: int  # K
    metrics: dict[str, Interval]  # intervals over clips, of the names in `METRICS` and more


@dataclass(frozen=True)
class Comparison:
    """Everything that was measured, on the same clips in one run."""

    rows: list[Row]
    costs: dict[str, Cost]  # of "video model" and "zipmo"
    tracking_seconds: float  # a video, on top of the video model's cost
    fitting: int  # our samples that fit in the time of one video, before the cap
    trackable: float  # share of points that the tracker follows in the true video
    clips: int
    settings: Settings
    per_clip: dict[tuple[str, str], dict[str, Tensor]]  # (comparison, method) -> metric -> (B,)

    def row(self, comparison: str, method: str) -> Row:
        """The line of a method; raises KeyError when there is none."""
        for row in self.rows:
            if (row.comparison, row.method) == (comparison, method):
                return row
        raise KeyError(f"there is no row {comparison!r}, {method!r}.")

    def table(self) -> str:
        """All lines as Markdown, costs and the number of clips below."""
        lines = ["| comparison | method | K | " + " | ".join(METRICS) + " |", "|---" * (len(METRICS) + 3) + "|"]
        for row in self.rows:
            cells = [f"{row.metrics[name]:.1f}" if name in row.metrics else "-" for name in METRICS]
            lines.append(f"| {row.comparison} | {row.method} | {row.samples} | " + " | ".join(cells) + " |")
        lines.append("")
        for name, cost in self.costs.items():
            lines.append(
                f"{name}: {1000 * cost.alone:.0f} ms for one sample, {1000 * cost.batched:.0f} ms each in a batch of "
                f"{self.settings.samples}, {cost.operations / 1e9:.2f} GFLOP a sample"
            )
        capped = f" (capped at {self.settings.cap})" if self.fitting > self.settings.cap else ""
        lines.append(
            f"{self.fitting} samples of ours fit in the time of one video{capped}; tracking it takes "
            f"{1000 * self.tracking_seconds:.0f} ms more, not counted. {self.clips} held-out scenes, noise seed "
            f"{self.settings.seed}, pixels at 128, 95 % intervals over scenes; the tracker follows "
            f"{100 * self.trackable:.0f} % of points in the true video."
        )
        return "\n".join(lines)


def scene_pairs(count: int, seed: int, *, size: int = 64, video_frames: int = 16, num_frames: int = 64) -> Pair:
    """Scenes as videos of F frames and exact tracks of T frames over the same time.

    Args:
        count: B, at most 512 (what one seed means to `scene_videos`).
        seed: `data.TEST_SEED` for scenes that were never trained on.
        size, video_frames, num_frames: S, F and T.

    Raises:
        ValueError: for more than 512 scenes.
    """
    if count > 512:
        raise ValueError(f"scene_pairs makes up to 512 scenes from one seed; got {count}.")
    tracks = sample_scenes(count, seed, size=8, num_frames=num_frames).tracks.xy  # pictures come from below
    return Pair(scene_videos(count, seed, size=size, num_frames=video_frames), tracks)


def track_videos(
    videos: Tensor, query_points: Tensor, num_frames: int = 64, *, tracker: str = "lk", side: int = 128
) -> Tensor:
    """Reads tracks off generated videos.

    Args:
        videos: (B, K, F, 3, S, S) in [-1, 1].
        query_points: (B, Q, 2) in the first frame, which all K videos of a clip share.
        num_frames: T; the F tracked positions are resampled with exact ends.
        tracker: name of a tracker, see `tracks.trackers`.
        side: pixels that frames are enlarged to first: trackers look at windows of many pixels.

    Returns:
        (B, K, Q, T, 2); a lost point stays where it was last seen.

    Raises:
        ShapeError: on wrong shapes, or a point outside the frame.
    """
    sizes = check_shape("videos", videos, "B K F 3 H W")
    check_shape("query_points", query_points, "B Q 2", B=sizes["B"])
    images = ((videos + 1) * 127.5).round().clamp(0, 255).byte().cpu()
    images = rearrange(images, "b k f c h w -> b k f h w c").numpy()
    rows = [
        torch.stack([track_points(_enlarged(video, side), points.cpu(), tracker).xy[0] for video in clip])
        for clip, points in zip(images, query_points, strict=True)
    ]
    return resample_time(torch.stack(rows), num_frames)


def _enlarged(video: np.ndarray, side: int) -> np.ndarray:
    import cv2

    if max(video.shape[1:3]) >= side:
        return video
    scale = side / max(video.shape[1:3])
    size = round(video.shape[2] * scale), round(video.shape[1] * scale)
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) for frame in video])


def trackable_points(tracked: Tensor, truth: Tensor) -> Tensor:
    """(B, N) bool: points whose track in the true video, (B, N, T, 2), is off by less than `TRACKABLE` on average."""
    return (tracked - truth).norm(dim=-1).mean(-1) * 64 < TRACKABLE


def seconds_of(run: Callable[[], object], rounds: int = 3) -> float:
    """Least wall-clock seconds of a call over some rounds, after one warm-up: what other programs add is not its own.

    Raises:
        ValueError: for fewer than 1 round.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1; got {rounds}.")
    run()
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken)


def operations_of(run: Callable[[], object]) -> int:
    """Floating-point operations of a call: matrix products, convolutions and attention, a multiply-add being two."""
    from torch.utils.flop_counter import FlopCounterMode

    # The counter does not know the CPU's fused attention; as plain matrix products it is counted.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def fitting_samples(budget: float, one: float, many: float, count: int) -> int:
    """How many samples fit in `budget` seconds when one takes `one` and a batch of `count` takes `many`; at least 1.

    Conditions are prepared once a clip, so time is a line in the number of samples.
    """
    each = max((many - one) / (count - 1), one / 1000)  # a noisy clock may say that more samples take less time
    return 1 + max(0, int((budget - one) / each))


def _costs(draw: Callable[[int], object], settings: Settings) -> Cost:
    batched = seconds_of(lambda: draw(settings.samples), settings.rounds)
    return Cost(
        alone=seconds_of(lambda: draw(1), settings.rounds),
        batched=batched / settings.samples,
        operations=operations_of(lambda: draw(settings.samples)) / settings.samples,
    )


@torch.no_grad()
def compare(
    latent: Callable[..., Tensor], model: VideoFlowMatcher, pair: Pair, settings: Settings | None = None
) -> Comparison:
    """Measures both methods and the controls on the same clips.

    Args:
        latent: our forecaster, called as everything in `forecast`.
        model: the video model.
        pair: held-out scenes, at least 2.
        settings: default :class:`Settings`.

    Raises:
        ShapeError: when the videos are not of the model's size, or there are fewer than 2.
    """
    settings = settings or Settings()
    config = model.config
    wanted = f"B {config.num_frames} 3 {config.frame_size} {config.frame_size}"
    if check_shape("videos", pair.videos, wanted)["B"] < 2:
        raise ShapeError("intervals over scenes need at least 2 scenes.")
    frames, truth = pair.frames, pair.tracks[:, :SCORED].float()
    first, last, points, length = frames[:, 0], frames[:, -1], truth[:, :, 0].clamp(-1, 1), truth.shape[2]
    pokes, mask, poked = pokes_from_tracks(truth, settings.pokes)
    ask = (first, pokes, mask, truth[:, :, 0])
    one = tuple(part[:1] for part in ask)
    follow = lambda videos, queries: track_videos(videos, queries, length, tracker=settings.tracker, side=settings.side)

    ours = lambda count: latent(*one, num_frames=length, samples=count, seed=settings.seed)
    theirs = lambda count: model.sample(first[:1], last[:1], samples=count, steps=settings.steps, seed=settings.seed)
    costs = {"video model": _costs(theirs, settings), "zipmo": _costs(ours, settings)}
    budget, cost = costs["video model"].alone, costs["zipmo"]
    fitting = fitting_samples(budget, cost.alone, cost.batched * settings.samples, settings.samples)
    many = min(fitting, settings.cap)
    tracking = seconds_of(lambda: follow(frames[:1, None], points[:1]), settings.rounds)

    floor = follow(frames[:, None], points)
    noise = torch.Generator().manual_seed(settings.seed)
    drawn = []
    for rows in torch.arange(len(frames)).split(settings.batch):
        videos = model.sample(first[rows], last[rows], samples=settings.samples, steps=settings.steps, seed=noise)
        drawn.append(follow(videos, points[rows]))
    video = torch.cat(drawn)
    parts = [
        latent(*(part[rows] for part in ask), num_frames=length, samples=max(many, settings.samples), seed=settings.seed)
        for rows in torch.arange(len(frames)).split(settings.batch)
    ]
    zipmo = torch.cat(parts)
    answers = {
        ("sample-matched", "video model"): video,
        ("sample-matched", "zipmo"): zipmo[:, : settings.samples],
        ("time-matched", "video model"): video[:, :1],
        ("time-matched", "zipmo"): zipmo[:, :many],
        ("control", "true video, tracked"): floor,
        ("control", "blend, tracked"): follow(model.blend(first, last)[:, None], points),
        ("control", "static"): baselines.static(*ask, num_frames=length),
        ("control", "linear"): baselines.linear(*ask, num_frames=length),
    }
    trackable = trackable_points(floor[:, 0], truth)
    per_clip = {name: _scores(answer, truth, poked, trackable) for name, answer in answers.items()}
    rows = [Row(*name, answers[name].shape[1], summarize(scores)) for name, scores in per_clip.items()]
    share = trackable.float().mean().item()
    return Comparison(rows, costs, tracking, fitting, share, len(frames), settings, per_clip)


def _scores(answer: Tensor, truth: Tensor, poked: Tensor, trackable: Tensor) -> dict[str, Tensor]:
    """The protocol's metrics, `*_moving`, `*_static`, and `*_trackable` besides."""
    scores: Mapping[str, Tensor] = generation_metrics(answer, truth, poked, moving_points(truth))
    subset = generation_metrics(answer, truth, moving=trackable)
    renamed = {f"{name[: -len('_moving')]}_trackable": value for name, value in subset.items() if name.endswith("_moving")}
    return {**scores, **renamed}


def evaluate_video(json_path: str | Path, *, profile_name: str = "lab", checkpoint: str | Path | None = None) -> str:
    """Compares the shipped (or given) planner and video model; behind ``python -m kinelib evaluate video``.

    Args:
        json_path: where rows and costs go.
        profile_name: how many scenes, see `SCENES`.
        checkpoint: folder with autoencoder, planner and video model.

    Returns:
        The table as Markdown.

    Raises:
        ValueError: for an unknown profile. FileNotFoundError: when a checkpoint is missing.
    """
    scenes = SCENES[profile(profile_name)]
    latent, model = load_latent(checkpoint), load_stage("video", checkpoint)
    found = compare(latent, model, scene_pairs(scenes, TEST_SEED))
    content = {name: getattr(found, name) for name in ("tracking_seconds", "fitting", "trackable", "clips")}
    content |= {"costs": {name: asdict(cost) for name, cost in found.costs.items()}, "settings": asdict(found.settings)}
    content["rows"] = [asdict(row) for row in found.rows]
    write_text_whole(json_path, json.dumps(content, indent=1) + "\n")
    return found.table()
