"""Trains the networks of the ZipMo part: autoencoder, planner (flow matcher), and the baselines that are trained.

    python -m kinelib train zipmo --stage autoencoder --profile lab --resume

Each stage is one call of `fit`; what differs between profiles stands in `SIZES`. The planner and the baselines use the
autoencoder of the same output folder, frozen. Data: procedural scenes, and tracks of real video where shards of them exist.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from kinelib.learning import checkpoints, state
from kinelib.learning.fit import FitConfig, FitResult, fit
from kinelib.learning.profiles import Profile, profile
from kinelib.learning.schedule import CONTINUED
from kinelib.learning.text import TextEncoder, TextTable, text_table
from kinelib.zipmo.augment import filmed_tracks, other_light
from kinelib.zipmo.autoencoder import AutoencoderConfig, TrackAutoencoder
from kinelib.zipmo.autoregressive import AutoregressiveModel
from kinelib.zipmo.data import TRAIN_SEED, Clips, draw_clips, encode_clips, raw_latents, real_count, scene_clips, shard_clips
from kinelib.zipmo.direct import DirectFlowMatcher
from kinelib.zipmo.flow_matcher import FlowMatcher, FlowMatcherConfig
from kinelib.zipmo.pokes import draw_pokes
from kinelib.zipmo.regression import Regression
from kinelib.zipmo.video_model import VideoFlowMatcher, scene_videos, video_draw, video_loss
from kinelib.zipmo.wordings import reworded

STAGES = ("autoencoder", "planner", "regression", "direct", "autoregressive", "video")
BATCHES = dict(zip(STAGES, (1, 2, 2, 0.5, 0.5, 0.5), strict=True))  # trajectories and videos are long
VIDEO_SHARE = 12  # one scene in so many is drawn as a whole video, which weighs 16 times as much
SHIPPED_STAGES = STAGES[:4]  # what a training without a stage makes; the others are asked for by name
BASELINES = STAGES[2:5]  # they share parts with the planner
KL_WEIGHT = 1e-5
REWORDED = 0.5  # of the captions are told to the planner in other words
MEASURED = 4096  # captions that statistics are taken from


@dataclass(frozen=True)
class Size:
    """How much of everything a profile trains."""

    scenes: int  # procedural scenes
    batch: int  # clips a step of the autoencoder; times BATCHES for the others
    seconds: dict[str, float]  # training seconds of each stage
    learning_rate: float = 2e-3  # peak
    points: int = 96  # tracks a clip
    real_share: float = 0.1  # of every batch from real video, where there is any
    real_encoded: float = 0.35  # the same for the autoencoder, which has to read pictures of every kind
    real_most: int = 64  # clips a real video


SIZES = {
    Profile.SMOKE: Size(256, 16, dict.fromkeys(STAGES, 12.0)),
    Profile.LAB: Size(24_576, 16, dict(zip(STAGES, (1300, 5950, 300, 780, 900, 1450), strict=True))),
    Profile.PAPER: Size(1_000_000, 64, dict.fromkeys(STAGES, 5 * 86_400.0), learning_rate=1e-4),
}


@dataclass(frozen=True)
class Sources:
    """Training clips: procedural scenes, and real video where there is some."""

    scenes: Clips
    real: Clips | None
    share: float

    def draw(self, count: int, generator: torch.Generator) -> Clips:
        """`count` clips, a share of them real."""
        return draw_clips(self.scenes, count, generator, self.real, self.share)

    def sentences(self) -> list[str]:
        """Every caption and its other wordings once, in order; the empty one too, for clips of which nothing is said."""
        captions = {"", *(self.scenes.captions or ()), *((self.real and self.real.captions) or ())}
        return sorted(captions.union(*map(reworded, captions)))


def training_sources(size: Size, *, frame_size: int = 64, cache: Path | None = None, real: Path | None = None) -> Sources:
    """The clips a profile trains on.

    Args:
        size: of the profile.
        frame_size: S of the first frames.
        cache: folder where generated scenes are kept.
        real: folder of real-video shards; its held-out sources are left out. None or absent: scenes only.
    """
    scenes = scene_clips(size.scenes, TRAIN_SEED, size=frame_size, cache=cache)
    clips = None
    if real is not None and real.exists():
        clips = shard_clips(real, size=frame_size, points=size.points, most=size.real_most, keep=is_training_clip)
    return Sources(scenes, clips, size.real_share)


def is_training_clip(clip) -> bool:
    """Whether a real clip may be trained on: its video is not one of those held out (split by source, `tracks.real`)."""
    return clip.tracks.provenance.get("split") != "test"


def autoencoder_draw(sources: Sources, batch: int):
    """Batches for the autoencoder: clips and how many of their tracks are encoded (4..48, mostly 24..48).

    Where there is real video, pictures are shown in other light too, and some real ones under a drawn camera (`augment`).
    """
    scenes = batch - real_count(batch, sources.real, sources.share)

    def draw(generator: torch.Generator) -> dict:
        clips = sources.draw(batch, generator)
        tracks, frame = clips.tracks.float(), clips.model_frames()
        if scenes < batch:
            filmed = filmed_tracks(tracks[scenes:], generator)
            tracks, frame = torch.cat([tracks[:scenes], filmed]), other_light(frame, generator)
        few = torch.rand((), generator=generator) < 0.3
        low, high = (4, 24) if few else (24, 49)
        encoded = int(torch.randint(low, high, (), generator=generator))
        return {"tracks": tracks[:, : encoded + 40], "frame": frame, "encoded": encoded}

    return draw


def autoencoder_loss(model: nn.Module, batch: dict, generator: torch.Generator) -> dict[str, Tensor]:
    """The autoencoder's loss on a drawn batch."""
    return getattr(model, "module", model).loss(
        batch["tracks"], batch["frame"], batch["encoded"], kl_weight=KL_WEIGHT, generator=generator
    )


def planner_draw(sources: Sources, batch: int, slots: int, sentences: TextTable | None = None):
    """Batches for the planner and the baselines: frames, latents, tracks, pokes drawn from the tracks, embedded captions."""

    def draw(generator: torch.Generator) -> dict:
        clips = sources.draw(batch, generator)
        tracks = clips.tracks.float()
        pokes, mask = draw_pokes(tracks, slots, generator)
        latents = None if clips.latents is None else clips.latents.float()
        text = None if sentences is None else sentences.pick(say_otherwise(clips.captions or [""] * batch, generator))
        frame = clips.model_frames()
        return {"frame": frame, "latents": latents, "pokes": pokes, "mask": mask, "tracks": tracks, "text": text}

    return draw


def say_otherwise(captions: Sequence[str], generator: torch.Generator, share: float = REWORDED) -> list[str]:
    """The captions, a share of them in one of their other wordings, where there are any."""
    chance, which = torch.rand(2, len(captions), generator=generator).tolist()
    said = []
    for caption, p, q in zip(captions, chance, which, strict=True):
        others = reworded(caption) if p < share else ()
        said.append(others[int(q * len(others))] if others else caption)
    return said


def latent_loss(autoencoder: TrackAutoencoder):
    """The planner's (or regression's) loss, decoding its clean estimate at the pokes with the frozen autoencoder."""

    def loss(model: nn.Module, batch: dict, generator: torch.Generator) -> dict[str, Tensor]:
        # Decoding is as dear as the network itself; a quarter of the clips is enough to hold it to the pokes.
        few = max(len(batch["frame"]) // 4, 1)
        autoencoder.to(batch["frame"].device)  # `fit` moves only what it trains
        frame = batch["frame"][:few]
        with torch.no_grad():
            features = autoencoder.features(frame)

        def decode(clean: Tensor, points: Tensor) -> Tensor:
            return autoencoder.decode(autoencoder.denormalize(clean[:few]), frame, points[:few], features=features)

        model = getattr(model, "module", model)
        said = {} if batch["text"] is None else {"text": batch["text"]}  # the regression reads none
        return model.loss(batch["latents"], batch["frame"], batch["pokes"], batch["mask"], decode, generator, **said)

    return loss


def tracks_loss(model: nn.Module, batch: dict, generator: torch.Generator) -> dict[str, Tensor]:
    """The loss of the baselines that generate trajectories: 24 tracks a clip, the poked ones among them, no latents."""
    tracks = batch["tracks"][:, :24]
    return getattr(model, "module", model).loss(tracks, batch["frame"], batch["pokes"], batch["mask"], generator)


def build(stage: str, size: Profile) -> nn.Module:
    """An untrained network of a stage at a profile's size."""
    if stage == "autoencoder":
        # Frames of 64 pixels instead of the paper's 224, because the planner reads the same ones at 4 pixels a cell.
        paper = AutoencoderConfig("transformer", patch=4, width=768, heads=12, encoder_depth=12, decoder_depth=12)
        return TrackAutoencoder(paper if size is Profile.PAPER else AutoencoderConfig())
    if stage == "planner":
        paper = FlowMatcherConfig(width=1024, image_width=768, depth=24, heads=16, patch=1, finely=False)
        # Most clips without pokes: what a sentence says is learnt where nothing else says it (LOG.md).
        lab = FlowMatcherConfig(drop=0.6, text_drop=0.25)
        return FlowMatcher({Profile.PAPER: paper, Profile.LAB: lab}.get(size, FlowMatcherConfig()))
    rest = (Regression, DirectFlowMatcher, AutoregressiveModel, VideoFlowMatcher)
    return dict(zip(STAGES[2:], rest, strict=True))[stage]()


def check_pair(autoencoder: TrackAutoencoder, model: FlowMatcher | Regression) -> None:
    """Raises ValueError when a network of latents does not fit the autoencoder it is to be trained with."""
    made = (tuple(model.config.latent_shape), model.config.frame_size)
    if made != (autoencoder.latent_shape, autoencoder.config.frame_size):
        raise ValueError(
            f"a {type(model).__name__} of latents {made[0]} and {made[1]}-pixel frames does not fit an autoencoder of "
            f"{autoencoder.latent_shape} and {autoencoder.config.frame_size}; train both with the same profile."
        )


def copy_shared(source: nn.Module, target: nn.Module) -> list[str]:
    """Copies the tensors that both networks have under the same name and shape, and returns their names."""
    theirs, ours = source.state_dict(), target.state_dict()
    shared = [name for name, tensor in ours.items() if name in theirs and theirs[name].shape == tensor.shape]
    target.load_state_dict(ours | {name: theirs[name] for name in shared})
    return shared


def data_folder(out: Path) -> Path:
    """Where generated scenes and real shards are kept: `data` in the folder "runs" around `out`, or else beside `out`."""
    return next((parent for parent in out.absolute().parents if parent.name == "runs"), out.parent) / "data"


def train_stage(
    stage: str,
    profile_name: str = "lab",
    out: str | Path = "runs/lab/zipmo",
    *,
    resume: bool = False,
    overwrite: bool = False,
    steps: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    real: str | Path | None = None,
    start: str | Path | None = None,
) -> FitResult:
    """Trains one stage and saves its checkpoint in `out`/<stage>.

    Args:
        stage: one of `STAGES`; planner and regression need `out`/autoencoder; the regression
                starts from `out`/planner where there is one.
        profile_name: "smoke", "lab" or "paper".
        out: output folder; states and logs go to `out`/<stage>-training.
        resume: go on with an interrupted training, if there is one.
        overwrite: start afresh and replace an older checkpoint.
        steps, seconds: instead of the profile's budget.
        seed: of weights, data order and noise.
        real: folder of real-video shards; default: `real` in :func:`data_folder`, if it is there.
        start: folder of earlier checkpoints; every tensor of `start`/<stage> that fits is where training begins, at
                `CONTINUED` of the peak learning rate. An autoencoder keeps its basis and its statistics, so that planners
                of the earlier one still fit.

    Raises:
        ValueError: for an unknown stage or profile, both steps and seconds, or an autoencoder that does not fit.
        FileNotFoundError: when the autoencoder this stage needs, or the folder `real`, is missing.
        FileExistsError: when there is a checkpoint already, and neither `overwrite` nor a training to resume.
    """
    if stage not in STAGES:
        raise ValueError(f"unknown stage {stage!r}; choose one of: {', '.join(STAGES)}.")
    name = profile(profile_name)
    size, out = SIZES[name], Path(out)
    if steps is None and seconds is None:
        seconds = size.seconds[stage]
    rate = size.learning_rate * (1 if stage == "autoencoder" else 0.75) * (1 if start is None else CONTINUED)
    config = FitConfig(steps=steps, seconds=seconds, learning_rate=rate, ema_decay=0.998, seed=seed, log_every=50)
    state.check_free(out / stage, out / f"{stage}-training", resume=resume, overwrite=overwrite)
    if real is not None and not Path(real).is_dir():
        raise FileNotFoundError(f"there is no folder {real} of real-video shards.")
    torch.manual_seed(seed)
    model = build(stage, name)
    if stage in ("planner", "regression"):  # before the scenes are made, which takes minutes
        autoencoder = checkpoints.load(out / "autoencoder", TrackAutoencoder, AutoencoderConfig).requires_grad_(False)
        check_pair(autoencoder, model)
    if stage in BASELINES and (out / "planner").is_dir():
        # The planner's clean estimate at pure noise is a regression already, the direct baseline has the same blocks, all
        # have the same conditions: every baseline gets what it can use of the planner's training.
        planner = checkpoints.load(out / "planner", FlowMatcher, FlowMatcherConfig)
        copy_shared(planner, model.network if stage == "regression" else model)
    if start is not None:
        copy_shared(checkpoints.load(Path(start) / stage, type(model), type(model.config)), model)
    cache, frame_size, batch = data_folder(out), model.config.frame_size, int(size.batch * BATCHES[stage])
    if stage == "video":
        videos = scene_videos(size.scenes // VIDEO_SHARE, TRAIN_SEED, size=frame_size, num_frames=model.config.num_frames)
        draw, loss, amounts = video_draw(videos, batch), video_loss, (len(videos), 0)
    else:
        sources = training_sources(size, frame_size=frame_size, cache=cache, real=Path(real) if real else cache / "real")
        amounts = len(sources.scenes), len(sources.real or ())
    if stage == "autoencoder":
        sources = replace(sources, share=size.real_encoded)
        if model.config.layout == "local" and start is None:
            model.codec.basis.measure(sources.scenes.tracks[:4096].float())
        draw, loss = autoencoder_draw(sources, batch), autoencoder_loss
    elif stage in ("direct", "autoregressive"):
        draw, loss = planner_draw(sources, batch, model.config.max_pokes), tracks_loss
    elif stage in ("planner", "regression"):
        encode = lambda clips: clips and encode_clips(clips, autoencoder, cache=cache)
        sources = Sources(encode(sources.scenes), encode(sources.real), sources.share)
        sentences = None
        if stage == "planner":
            sentences = text_table(sources.sentences(), TextEncoder(), cache)
            some = torch.randperm(len(sentences), generator=torch.Generator().manual_seed(0))[:MEASURED]
            model.conditions.sentence.measure(sentences.pick(some))
        draw, loss = planner_draw(sources, batch, model.config.max_pokes, sentences), latent_loss(autoencoder)
    result = fit(
        model,
        draw,
        loss,
        config,
        out / f"{stage}-training",
        resume=resume,
        overwrite=overwrite,
        description=f"zipmo {stage}",
    )
    if not result.stopped_early and int(os.environ.get("RANK", 0)) == 0:
        if stage == "autoencoder" and start is None:  # or else planners of the earlier one would not fit any more
            model.measure_statistics(raw_latents(sources.scenes.pick(torch.arange(min(4096, size.scenes))), model))
        half = stage != "autoencoder"  # whose small error is decoded; the others are three times as large
        budget = {"steps": steps, "seconds": config.seconds, "seed": seed, "start": start and "DIR"}
        card = stage_card(stage, name, *amounts, result, budget, None if start is None else Path(start) / stage)
        checkpoints.save(out / stage, model, card=card, overwrite=True, half=half)
    return result


def stage_card(
    stage: str, name: Profile, scenes: int, real: int, result: FitResult, options: dict, begun: Path | None = None
) -> str:
    """The checkpoint's card, before anything is measured on held-out data.

    Args:
        stage, name: what was trained, at which profile.
        scenes, real: how many procedural scenes and windows of real video it saw.
        result: of the training.
        options: of the command; None = not given.
        begun: folder of the checkpoint that training began with.
    """
    videos = f"{real} windows of real video tracked by Lucas-Kanade" if real else "no real video"
    licence = "CC BY-NC 4.0, since the real videos come from a non-commercial repository." if real else "MIT."
    start = " It starts from the planner's weights." if stage in BASELINES else ""
    start = " It starts from an earlier checkpoint of this stage (see LOG.md)." if options.get("start") else start
    given = "".join(f" --{name} {value}" for name, value in options.items() if value is not None)
    return checkpoints.write_card(
        f"ZipMo {stage} ({name})",
        data=f"{scenes} procedural scenes (kinelib.tracks.scenes, seed {TRAIN_SEED}) and {videos}.{start}",
        licence=checkpoints.inherited_licence(licence, begun),
        command=f"python -m kinelib train zipmo --stage {stage} --profile {name}{given}",
        metrics={"steps": float(result.steps), "seconds": result.seconds, "final loss": float(result.losses[-1]["loss"])},
    )
