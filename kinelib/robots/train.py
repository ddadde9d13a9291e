"""Makes demonstrations and trains what learns from them: a planner, the policy that follows it, and behaviour cloning.

    python -m kinelib robots demos --profile lab
    python -m kinelib train robots --stage planner --profile lab --resume

    stage       what it makes                                                          needs
    demos       shards of successful episodes of scripted experts, slightly disturbed  a simulator and a renderer
    guess       motion latents of every view, regressed from a glance and a sentence   demos, the shipped autoencoder
    planner     the same, drawn: a flow matcher that adds to the guess                 demos, guess, the shipped autoencoder
    cloning     the baseline: action chunks from pictures, sentence, proprioception    demos
    inverse     actions from exact tracks, proprioception from pictures                demos
    affordance  where what will be moved is, and where it ends, in pictures            demos
    policy      cloning from plans and affordances as well, and from recordings        demos, planner, inverse, affordance

As in ATM's protocol, which the paper follows, actions are scarce and recordings are not: the first `labelled` demonstrations
of a task have actions, the others are recordings, pictures and tracks alone. Cloning learns from the former, the planner
from the latter. The policy learns from both: what was done in a recording is read off its tracks by inverse dynamics, which
are learnt from the labelled ones; half of a batch is labelled. Where an affordance was trained it becomes part of the
policy. Policy and cloning take as many steps with as many examples. All of a training set lies in memory; latents, plans and
glances are made once.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from kinelib.learning import checkpoints, state
from kinelib.learning.files import written_whole
from kinelib.learning.fit import FitConfig, FitResult, fit
from kinelib.learning.profiles import Profile, profile
from kinelib.learning.text import TextEncoder, TextTable, text_table
from kinelib.robots.action_net import ActionNet, ActionNetConfig
from kinelib.robots.affordance import Affordance, AffordanceConfig, moment_affordances
from kinelib.robots.batches import action_draw, affordance_draw, guess_draw, inverse_draw, own_loss, planner_draw
from kinelib.robots.demonstrations import make_demonstrations
from kinelib.robots.inverse_dynamics import InverseDynamics, InverseDynamicsConfig, label_recordings
from kinelib.robots.motion_guess import MotionGuess, MotionGuessConfig
from kinelib.robots.pretrained import load_affordance, load_inverse_dynamics, load_planner
from kinelib.robots.robot_data import RobotSet, demonstrated_tasks, joined, load_set, moment_tracks, with_latents
from kinelib.robots.robot_planner import ACTING_STEPS, SMALL, RobotPlanner, RobotPlannerConfig
from kinelib.robots.suites import Suite, find_suite
from kinelib.robots.worlds import check_known
from kinelib.zipmo.autoencoder import AutoencoderConfig, TrackAutoencoder
from kinelib.zipmo.flow_matcher import FlowMatcher, FlowMatcherConfig
from kinelib.zipmo.pretrained import SHIPPED as OPEN_DOMAIN
from kinelib.zipmo.train import copy_shared

STAGES = ("demos", "guess", "planner", "cloning", "inverse", "affordance", "policy")
RECORDED = ("guess", "planner", "affordance")  # learn from recordings
SHIPPED_STAGES = STAGES[1:]  # the guess is part of the planner's checkpoint
LICENCE = (
    "CC BY-NC 4.0: the demonstrations are our own simulation, but planner and latents start from the shipped open-domain "
    "autoencoder and planner, which saw real videos of a non-commercial repository."
)


@dataclass(frozen=True)
class Size:
    """How much of everything a profile makes and trains."""

    tasks: int  # of the suite's list, from its beginning
    demos: int  # of each
    labelled: int  # of those, the first ones, whose actions policy and cloning learn
    budget: dict[str, dict[str, float]]  # training seconds or steps of every stage
    batch: dict[str, int]  # examples a step
    learning_rate: float = 2e-3  # peak; the planner, which begins trained, takes half


SIZES = {
    Profile.SMOKE: Size(
        2,
        10,
        5,
        {
            "guess": {"steps": 300},
            "planner": {"seconds": 10.0},
            "cloning": {"steps": 400},
            "inverse": {"steps": 300},
            "affordance": {"steps": 30},
            "policy": {"steps": 400},
        },
        {"guess": 64, "planner": 8, "cloning": 32, "inverse": 32, "affordance": 8, "policy": 32},
    ),
    Profile.LAB: Size(
        10,
        80,
        20,
        {
            "guess": {"steps": 6000},
            "planner": {"seconds": 900.0},
            "cloning": {"steps": 30_000},
            "inverse": {"steps": 4000},
            "affordance": {"steps": 4000},
            "policy": {"steps": 30_000},
        },
        {"guess": 128, "planner": 16, "cloning": 64, "inverse": 128, "affordance": 16, "policy": 64},
    ),
    Profile.PAPER: Size(
        50,
        50,
        10,
        dict.fromkeys(STAGES[1:], {"seconds": 86_400.0}),
        {"guess": 256, "planner": 64, "cloning": 256, "inverse": 256, "affordance": 64, "policy": 256},
        3e-4,
    ),
}


def demonstrate_stage(
    profile_name: str = "lab",
    out: str | Path = "runs/lab/robots",
    *,
    suite: str | Suite = "metaworld",
    tasks: Iterable[str] | None = None,
    demos: int | None = None,
    split: str = "train",
    tell: Callable[[str], None] | None = None,
) -> list[Path]:
    """Makes demonstrations into `out`/demos; those that are there already are kept.

    Args:
        profile_name: "smoke", "lab" or "paper"; decides how many tasks and demonstrations.
        out: output folder.
        suite: its name, or a Suite of your own.
        tasks, demos: instead of the profile's.
        split: "train" or "held-out".
        tell: is told of every shard.

    Raises:
        WorldError, RendererError, DemonstrationError: as :func:`make_demonstrations`.
    """
    size, suite = SIZES[profile(profile_name)], find_suite(suite)
    demos = demos or size.demos
    config = replace(suite.demos, demos=demos, per_shard=min(5, demos), split=split)
    chosen = list(tasks) if tasks is not None else suite.tasks[: size.tasks]
    return make_demonstrations(suite.make_world, chosen, Path(out) / "demos", config, texts=suite.texts, tell=tell)


def train_stage(
    stage: str,
    profile_name: str = "lab",
    out: str | Path = "runs/lab/robots",
    *,
    resume: bool = False,
    overwrite: bool = False,
    steps: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    start: str | Path | None = OPEN_DOMAIN,
    demos: str | Path | None = None,
    tasks: Iterable[str] | None = None,
    labelled: int | None = None,
    recordings: bool = True,
    changes: dict | None = None,
) -> FitResult:
    """Trains one stage and saves its checkpoint in `out`/<stage>.

    Args:
        stage: "guess", "planner", "cloning", "inverse" or "policy"; `demos` is made by :func:`demonstrate_stage`.
        profile_name: "smoke", "lab" or "paper".
        out: output folder; states and logs go to `out`/<stage>-training.
        resume: go on with an interrupted training, if there is one.
        overwrite: start afresh and replace an older checkpoint.
        steps, seconds: instead of the profile's budget.
        seed: of weights, data order and noise.
        start: folder of open-domain checkpoints: its autoencoder is used, its planner's tensors that fit are where the robot
            planner begins; None takes the shipped autoencoder and begins at random weights.
        demos: folder of shards; default `out`/demos.
        tasks: which; default all that are there.
        labelled: demonstrations of a task whose actions are learnt from, instead of the profile's; fewer make a curve of
            data efficiency. The planner learns from those beyond as many.
        recordings: whether the policy learns from those beyond too, from actions that the inverse dynamics tell.
        changes: fields of `ActionNetConfig` to set, such as {"reads": "latents"} for the paper's head alone, or
            {"noise": 0.3} where demonstrations are few and where a goal is exactly counts less (LIBERO).

    Raises:
        ValueError: for an unknown stage or profile, or both steps and seconds.
        FileNotFoundError: when there are no demonstrations, or no planner or inverse dynamics for the policy.
        DemonstrationError: when a task has too few.
        FileExistsError: when there is a checkpoint already, and neither `overwrite` nor a training to resume.
    """
    check_known("stage", stage, STAGES[1:])
    name, out = profile(profile_name), Path(out)
    size = SIZES[name]
    if steps is None and seconds is None:
        steps, seconds = (size.budget[stage].get(unit) for unit in ("steps", "seconds"))
    state.check_free(out / stage, out / f"{stage}-training", resume=resume, overwrite=overwrite)
    rate = size.learning_rate * (0.5 if stage == "planner" else 1)
    config = FitConfig(steps=steps, seconds=seconds, learning_rate=rate, ema_decay=0.995, seed=seed, log_every=20)
    demos, labelled = Path(demos or out / "demos"), size.labelled if labelled is None else labelled
    recorded = stage in RECORDED
    tasks = None if tasks is None else list(tasks)
    beyond, first = {"tasks": tasks, "skip": labelled}, {"tasks": tasks, "per_task": labelled}
    which = beyond if recorded else first
    data, known = load_set(demos, **which), None
    if stage == "policy" and recordings:
        inverse = load_inverse_dynamics(out)
        around = moment_tracks(demos, inverse.config.offsets, **beyond)
        data, known = joined(data, label_recordings(load_set(demos, **beyond), *around, inverse)), len(data)
    table = text_table(data.sentences, TextEncoder(), out)
    torch.manual_seed(seed)
    looks = torch.Generator().manual_seed(seed)
    if stage in ("guess", "planner"):
        autoencoder = _autoencoder(start)
        data = with_latents(data, demos, autoencoder, **which, cache=out)
    if stage == "guess":
        shape = tuple(data.latents.shape[2:])
        components = min(MotionGuessConfig.components, len(data.latents) // 2)
        model = MotionGuess(MotionGuessConfig(data.views, shape, data.pictures.shape[2], components=components))
        seen, wanted = model.glance.measure(data.pictures, looks), model.measure(data.latents.float())
        draw = guess_draw(data, sentence_vectors(table, data), seen, wanted, size.batch[stage])
    elif stage == "planner":
        guess = checkpoints.load(out / "guess", MotionGuess, MotionGuessConfig)
        model = build_planner(data, name, None if start is None else Path(start) / "planner", guess)
        model.measure_statistics(data.latents.float(), autoencoder)
        seen = guess.glance.look(data.pictures)
        draw = planner_draw(model, data, table, seen, size.batch[stage])
    elif stage == "inverse":
        model = build_inverse(data)
        model.measure_statistics(data.proprio)
        seen = model.glance.measure(data.pictures, looks)
        draw = inverse_draw(data, *moment_tracks(demos, model.config.offsets, **which), seen, size.batch[stage])
    elif stage == "affordance":
        model = Affordance(AffordanceConfig(data.views, data.pictures.shape[2]))
        places, there = moment_affordances(demos, **which)
        draw = affordance_draw(data, sentence_vectors(table, data), places, there, size.batch[stage])
    else:
        planner = load_planner(out) if stage == "policy" else None
        affordance = load_affordance(out) if stage == "policy" else None
        model = build_actions(stage, data, changes or {}, planner, affordance)
        seen = model.glance.measure(data.pictures, looks) if model.config.looks else None
        plans = None
        if model.config.plans:
            latents = training_plans(planner, data, table, cache=out)
            plans = torch.cat([model.read(part.float(), planner) for part in latents.split(64)])
        words, found = sentence_vectors(table, data), None
        if model.config.looks and model.affordance is not None:
            found = model.affordance.look(data.pictures, words[data.said])
        model.measure_statistics(data.proprio, plans if model.config.looks else None, found)
        draw = action_draw(data, words, seen, plans, size.batch[stage], known, found)
    result = fit(
        model,
        draw,
        own_loss,
        config,
        out / f"{stage}-training",
        resume=resume,
        overwrite=overwrite,
        description=f"robots {stage}",
    )
    if not result.stopped_early and int(os.environ.get("RANK", 0)) == 0:
        options = {"steps": steps, "seconds": seconds, "seed": seed}
        options["noise"] = (changes or {}).get("noise")
        options["labelled"] = labelled if labelled != size.labelled else None
        options["no-recordings"] = stage == "policy" and not recordings
        card = stage_card(stage, name, data, result, options, known)
        checkpoints.save(out / stage, model, card=card, overwrite=True, half=True)
    return result


def _autoencoder(start: str | Path | None) -> TrackAutoencoder:
    """The frozen autoencoder of the open domain: of a folder of checkpoints, or the shipped one."""
    folder = Path(start or OPEN_DOMAIN) / "autoencoder"
    return checkpoints.load(folder, TrackAutoencoder, AutoencoderConfig).requires_grad_(False)


def build_planner(data: RobotSet, name: Profile, start: Path | None, guess: MotionGuess) -> RobotPlanner:
    """An untrained planner for a set's views, with its guess and what fits of an open-domain planner's weights."""
    flow = replace(SMALL, width=768, heads=12, depth=12, patch=1) if name is Profile.PAPER else SMALL
    model = RobotPlanner(RobotPlannerConfig(data.views, data.every, data.window, flow, guess.config))
    model.first.load_state_dict(guess.state_dict())
    if start is not None:
        copy_shared(checkpoints.load(start, FlowMatcher, FlowMatcherConfig), model.flow)
    return model


def build_actions(
    stage: str,
    data: RobotSet,
    changes: dict,
    planner: RobotPlanner | None = None,
    affordance: Affordance | None = None,
) -> ActionNet:
    """An untrained policy or cloning network for a set's views, proprioception and actions, a planner's components and a
    trained affordance, which becomes part of it."""
    plain = ActionNetConfig()
    head = replace(
        plain.head,
        views=len(data.views),
        proprio=data.proprio.shape[1],
        horizon=data.chunks.shape[1],
        actions=data.chunks.shape[2],
    )
    reads = "components" if stage == "policy" else "glance"
    measured = {"head": head, "views": data.views, "reads": reads, "frame_size": data.pictures.shape[2]}
    if planner is not None and planner.first is not None:
        measured["components"] = min(plain.components, planner.first.config.components)
    if affordance is not None:
        measured["affordance"] = affordance.config
    model = ActionNet(replace(plain, **(measured | changes)))
    if model.config.looks and model.affordance is not None:
        model.affordance.load_state_dict(affordance.state_dict())
    return model


def build_inverse(data: RobotSet) -> InverseDynamics:
    """An untrained inverse dynamics model for a set's views, proprioception and actions."""
    sizes = {"proprio": data.proprio.shape[1], "every": data.every, "actions": data.chunks.shape[2]}
    return InverseDynamics(InverseDynamicsConfig(data.views, frame_size=data.pictures.shape[2], **sizes))


def sentence_vectors(table: TextTable, data: RobotSet) -> Tensor:
    """(U, 384) one vector of length 1 for each of a set's sentences: the mean of its word pieces."""
    return table.pick(list(data.sentences)).pooled()


def training_plans(
    planner: RobotPlanner, data: RobotSet, table: TextTable, *, cache: Path | None = None, seed: int = 0
) -> Tensor:
    """What a planner says at the beginning of every window: (W, V, 1, R, C, D) float16, normalised."""
    path = None
    if cache is not None:
        digest = hashlib.sha256(bytes([ACTING_STEPS]))
        for rows in data.starts.split(256):
            digest.update(data.pictures[rows].numpy().tobytes() + "\n".join(data.texts(rows)).encode())
        for tensor in planner.state_dict().values():
            digest.update(tensor.contiguous().numpy().tobytes())
        path = cache / f"plans-{digest.hexdigest()[:16]}.safetensors"
        if path.is_file():
            return load_file(path)["plans"]
    noise = torch.Generator().manual_seed(seed)
    plans = [
        planner.plan(data.frames(rows), table.pick(data.texts(rows)), steps=ACTING_STEPS, seed=noise).half()
        for rows in data.starts.split(32)
    ]
    if path is not None:
        with written_whole(path) as sibling:
            save_file({"plans": torch.cat(plans)}, sibling)
    return torch.cat(plans)


def stage_card(stage: str, name: Profile, data: RobotSet, result: FitResult, options: dict, known: int | None = None) -> str:
    """The checkpoint's card, before anything is measured in rollouts; `known`: moments whose actions were not read off."""
    tasks = demonstrated_tasks(data)
    told = {key: value for key, value in options.items() if value is not None and value is not False}
    given = "".join(f" --{key}" if value is True else f" --{key} {value}" for key, value in told.items())
    return checkpoints.write_card(
        f"Robot {stage} ({name})",
        data=f"{len(data)} moments of demonstrations by scripted experts of {len(tasks)} tasks ({', '.join(tasks)}), made "
        "by ourselves in simulation with the MIT-licensed packages metaworld and mujoco."
        + (f" Actions of all but {known} moments were read off their tracks by inverse dynamics." if known else ""),
        licence="MIT." if stage in ("cloning", "inverse") else LICENCE,
        command=f"python -m kinelib train robots --stage {stage} --profile {name}{given}",
        metrics={"steps": float(result.steps), "seconds": result.seconds, "final loss": float(result.losses[-1]["loss"])},
    )
