"""The command line: ``python -m kinelib COMMAND``. Each command is a thin door to a function of the library."""

from __future__ import annotations

import argparse
import ast
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinelib.commands import parser

if TYPE_CHECKING:
    from kinelib.tracks.tracks import Poke


def run_command(arguments: argparse.Namespace) -> int:
    """Carries out a parsed command and returns the exit status; imports only what that command needs."""
    given = arguments
    match given.command:
        case "check":
            from kinelib.course.check import check

            return 0 if check() else 1
        case "run":
            return _run(given)
        case "train":
            return _train(given)
        case "track":
            _track(given)
        case "generate":
            _generate_motion(given) if given.what == "motion" else _generate_tracks(given)
        case "export":
            _export(given)
        case "annotate":
            _annotate(given)
        case "retrieve":
            _retrieve(given)
        case "evaluate":
            print(_evaluate(given))
        case "robots":
            _demonstrate(given)
        case "parity":
            from kinelib.official import parity_report

            report, good = parity_report(given.folder)
            print(report)
            return 0 if good else 1
        case "bench":
            from kinelib.bench import bench_kimodo, bench_zipmo

            if given.system == "kimodo":
                print(bench_kimodo(threads=given.threads, json_path=given.json))
            else:
                print(bench_zipmo(threads=given.threads, json_path=given.json, compile=given.compile))
    return 0


def _track(given: argparse.Namespace) -> None:
    if given.clips:
        from kinelib.tracks.real import Windows
        from kinelib.tracks.video_shards import write_video_shards

        part, parts = given.shard
        options = dict(shard_index=part, num_shards=parts, grid=given.grid or 24, seed=given.seed, say=print)
        cut = {name: getattr(given, name) for name in ("hop", "crops") if getattr(given, name)}
        options |= dict(windows=Windows(**cut))
        write_video_shards(given.video, given.out, held_out=tuple(given.hold_out), **options)
        return
    if len(given.video) > 1 or given.hold_out or given.shard != (0, 1) or given.hop or given.crops:
        raise ValueError(
            "one video is tracked at a time; several videos, --hold-out, --shard, --hop and --crops go with --clips."
        )

    from kinelib.tracks.track_video import track_video

    tracks = track_video(
        given.video[0],
        given.out,
        tracker=given.tracker,
        points=given.points,
        grid=given.grid,
        start=given.start,
        frames=given.frames,
        stride=given.stride,
        seed=given.seed,
        caption=given.caption,
        overwrite=given.overwrite,
    )
    print(f"wrote {tracks.xy.shape[1]} tracks of {tracks.xy.shape[2]} frames to {given.out}")


def _generate_tracks(given: argparse.Namespace) -> None:
    pokes = [parse_poke(text) for text in given.poke]
    from kinelib.zipmo.generate import generate_tracks

    futures = generate_tracks(
        given.frame,
        pokes,
        samples=given.samples,
        seed=given.seed,
        out=given.out,
        checkpoint=given.checkpoint,
        grid=given.grid,
        num_frames=given.frames,
        steps=given.steps,
        guidance=given.guidance,
        correction=given.correction,
        text=given.text,
        text_guidance=given.text_guidance,
        overwrite=given.overwrite,
    )
    print("wrote {} futures of {} points and {} frames to".format(*futures.shape[:3]), given.out)


def _generate_motion(given: argparse.Namespace) -> None:
    own = {"steps": given.steps, "stage": given.stage}
    if given.system == "kinmo":
        from kinelib.kinmo.write_motions import generate_motions

        if given.constraints:
            raise ValueError("--constraints are for kimodo; kinmo reads --group sentences.")
        if given.published:
            raise ValueError("--published is for kimodo.")
        weights = _numbers("--guidance", given.guidance, 1)
        own |= {"groups": given.group, "guidance": weights and weights[0]}
    else:
        from kinelib.kimodo.write_motions import generate_motions

        if given.group:
            raise ValueError("--group is for kinmo; add --system kinmo.")
        own |= {"constraints": given.constraints, "solver": given.solver, "cleanup": not given.raw}
        own |= {"guidance": _numbers("--guidance", given.guidance, 2), "published": given.published}
    motions = generate_motions(
        given.prompt,
        given.duration,
        samples=given.samples,
        seed=given.seed,
        checkpoint=given.checkpoint,
        out=given.out,
        overwrite=given.overwrite,
        say=print,
        **{name: value for name, value in own.items() if value is not None},
    )
    print(f"wrote {len(motions)} motion(s) of {motions[0].seconds:.1f} s to {given.out}")


def _numbers(option: str, given: Sequence[float] | None, count: int) -> tuple[float, ...] | None:
    """As many numbers as the system takes; None where none were given."""
    if given is not None and len(given) != count:
        raise ValueError(f"{option} takes {count} number{'s' * (count > 1)} here; got {len(given)}.")
    return given and tuple(given)


def _annotate(given: argparse.Namespace) -> None:
    from kinelib.kinmo.annotate_files import annotate_files

    options = dict(texts=given.text, keyframes=given.keyframes, overwrite=given.overwrite)
    records = annotate_files(given.source, given.out, **options)
    if given.out is not None:
        print(f"wrote {len(records)} record(s) to {given.out}")
        return
    for record in records:
        print(f"{record.name} ({record.end} frames at {record.fps:g} a second)")
        for name, said in (*record.groups.items(), *record.interactions.items()):
            print(f"  {name:24} {said}")
        for frame, said in record.keyframes:
            print(f"  frame {frame:<18} {said}")


def _retrieve(given: argparse.Namespace) -> None:
    from kinelib.kinmo.search_files import retrieve_motions
    from kinelib.kinmo.train import captured_folder

    hits, searched = retrieve_motions(
        given.text,
        motion=given.motion,
        count=given.count,
        captured=captured_folder(given.captured),
        cache=Path("runs") / "data",
        checkpoint=given.checkpoint,
        out=given.out,
        overwrite=given.overwrite,
    )
    print(f"of {searched} clips, nearest first (cosine):")
    for hit in hits:
        print(f"  {hit.score:5.2f}  {hit.title}")
    if given.out is not None:
        print(f"wrote the nearest to {given.out}")


def _export(given: argparse.Namespace) -> None:
    from kinelib.bodies.motion_files import load_motion, save_motion
    from kinelib.bodies.retarget import retarget
    from kinelib.bodies.skeletons import named

    if given.out.exists() and not given.overwrite:
        raise FileExistsError(f"{given.out} exists; choose another name or pass --overwrite.")
    motion = load_motion(given.source)
    motion = retarget(motion, named(given.skeleton)) if given.skeleton else motion
    motion = motion.resampled(given.fps) if given.fps else motion
    if given.out.suffix == ".mp4":
        from kinelib.show.motion_export import save_film

        save_film(motion, given.out)
    else:
        save_motion(motion, given.out)
    print(f"wrote {len(motion)} frames of {len(motion.skeleton)} joints to {given.out}")


def _demonstrate(given: argparse.Namespace) -> None:
    from kinelib.robots.train import demonstrate_stage

    out = given.out or Path("runs") / given.profile / "robots"
    split = "held-out" if given.held_out else "train"
    options = dict(suite=given.suite, tasks=given.task, demos=given.demos, split=split)
    shards = demonstrate_stage(given.profile, out, tell=print, **options)
    print(f"{len(shards)} shards are in {out / 'demos'}")


def _evaluate(given: argparse.Namespace) -> str:
    say = lambda line: print(line, file=sys.stderr, flush=True)
    match given.system:
        case "zipmo":
            from kinelib.zipmo.evaluate import evaluate

            options = dict(profile_name=given.profile, checkpoint=given.checkpoint, real=given.real, only=given.way)
            return evaluate(given.json, say=say, **options)
        case "prompts":
            from kinelib.zipmo.prompts import evaluate_prompts

            return evaluate_prompts(given.json, profile_name=given.profile, checkpoint=given.checkpoint)
        case "video":
            from kinelib.zipmo.video_comparison import evaluate_video

            return evaluate_video(given.json, profile_name=given.profile, checkpoint=given.checkpoint)
        case "kimodo":
            from kinelib.kimodo.evaluate import evaluate_kimodo

            options = dict(profile_name=given.profile, stage=given.stage, checkpoint=given.checkpoint)
            return evaluate_kimodo(given.json, captured=given.captured, say=say, **options)
        case "kimodo-ablation":
            from kinelib.kimodo.ablation import study

            folder = Path("runs") / given.profile / "kimodo-ablation"
            return study(given.json, folder, checkpoint=given.checkpoint, captured=given.captured, say=say)
        case "kinmo":
            from kinelib.kinmo.evaluate import PARTS, evaluate_kinmo

            options = dict(captured=given.captured, parts=tuple(given.part or PARTS))
            return evaluate_kinmo(given.json, given.profile, given.checkpoint, say=say, **options)
        case "kinmo-ablation":
            from kinelib.kinmo.align_ablation import study as aligner_study

            return aligner_study(given.json, Path("runs") / given.profile / "alignment", captured=given.captured, say=say)
        case "robots":
            if given.curve:
                from kinelib.robots.efficiency import curve, curve_table

                return curve_table(curve(dict(given.curve), given.json))
            from kinelib.robots.evaluate import WAYS, evaluate_robots

            options = dict(
                profile_name=given.profile, checkpoint=given.checkpoint, tasks=given.task, episodes=given.episodes
            )
            return evaluate_robots(given.suite, given.json, ways=given.way or WAYS, say=say, **options)
    from kinelib.show.ablation import verdict_table
    from kinelib.zipmo import ablation

    rows = ablation.sweep(Path("runs") / given.profile / "ablation", say=say)
    ablation.ship(Path("runs") / given.profile / "ablation", given.json)
    return verdict_table(rows)


def _run(given: argparse.Namespace) -> int:
    from kinelib.course import figures, runner

    parameters = {name: parameter_value(value) for name, value in given.p}
    if given.seed is not None:
        parameters["seed"] = given.seed
    outcomes = runner.run(
        given.names,
        given.profile,
        given.jobs,
        given.keep_going,
        given.timeout_per_cell,
        given.dry_run,
        parameters=parameters,
        solutions=given.solutions,
        force=given.force,
    )
    print()
    print(runner.table(outcomes, given.profile))
    for one in outcomes:
        if one.status in ("failed", "would run"):
            print(f"{one.notebook}: {one.status}: {one.reason}")
    good = runner.succeeded(outcomes)
    if given.gallery and good and not given.dry_run:
        copied = figures.publish([one.notebook for one in outcomes], given.profile)
        print(f"copied {len(copied)} figures into figures/")
    return 0 if good else 1


def _train(given: argparse.Namespace) -> int:
    options = dict(
        resume=given.resume,
        overwrite=given.overwrite,
        steps=given.steps,
        seconds=given.seconds,
        seed=given.seed,
        start=given.start,
    )
    if given.system == "kimodo":
        from kinelib.kimodo.train import SHIPPED_STAGES, train_stage

        options["captured"] = given.captured
    elif given.system == "kinmo":
        from kinelib.kinmo.train import SHIPPED_STAGES, train_stage

        options["captured"] = given.captured
    elif given.system == "robots":
        from kinelib.robots.train import SHIPPED_STAGES, train_stage

        # Open-domain weights are where the robot planner begins unless others are named.
        options = {name: value for name, value in options.items() if name != "start" or value is not None}
        options |= {"demos": given.demos, "labelled": given.labelled, "recordings": given.recordings}
        options["changes"] = {} if given.noise is None else {"noise": given.noise}
    else:
        from kinelib.zipmo.train import SHIPPED_STAGES, train_stage

        options["real"] = given.real
    out = given.out or Path("runs") / given.profile / given.system
    for stage in [given.stage] if given.stage else SHIPPED_STAGES:
        result = train_stage(stage, given.profile, out, **options)
        if result.stopped_early:
            print(f"{stage}: stopped after {result.steps} steps; its state is saved. Go on with --resume.")
            return 130
        print(f"{stage}: {result.steps} steps in {result.seconds:.0f} s, in {out / stage}")
    return 0


def parse_poke(text: str) -> Poke:
    """Reads ``x,y,gx,gy[,t]``; the time is 1, the last frame, when it is left out.

    Raises:
        ValueError: when there are not four or five finite numbers, or one is out of range; the message says what to write.
    """
    from kinelib.tracks.tracks import Poke

    shape = "a poke is x,y,gx,gy or x,y,gx,gy,t, for example --poke 0.1,0.2,0.6,0.2"
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--poke {text}: {shape}; every part is a number, without spaces.") from None
    if len(numbers) not in (4, 5):
        raise ValueError(f"--poke {text}: {len(numbers)} numbers; {shape}.")
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"--poke {text}: every number must be finite.")
    x, y, goal_x, goal_y, time = [*numbers, 1.0][:5]
    # A goal may lie beyond the frame, where things leave it; one beyond 2 is a pixel, and not a wish.
    for name, value, limit in (("x", x, 1), ("y", y, 1), ("gx", goal_x, 2), ("gy", goal_y, 2)):
        if abs(value) > limit:
            raise ValueError(
                f"--poke {text}: {name} = {value:g} lies outside the frame. Coordinates run from -1 (left, top) to 1 "
                "(right, bottom); for pixels, write 2 * pixel / size - 1."
            )
    if not 0 < time <= 1:
        raise ValueError(f"--poke {text}: t = {time:g} is not a time after the first frame (0) and up to the last one (1).")
    return Poke((x, y), (goal_x, goal_y), time)


def parameter_value(text: str) -> Any:
    """The value of ``-p NAME VALUE``: a Python literal, true/false/none in any case, or else the text itself."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def join_pokes(arguments: Sequence[str]) -> list[str]:
    """Writes ``--poke -0.5,0,0,0`` as one word, because argparse takes a word that starts with a minus for an option."""
    joined: list[str] = []
    for word in arguments:
        if joined and joined[-1] == "--poke":
            joined[-1] = f"--poke={word}"
        else:
            joined.append(word)
    return joined


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; errors that a user can mend are one line and exit status 2."""
    given = parser().parse_args(join_pokes(sys.argv[1:] if arguments is None else arguments))
    try:
        return run_command(given)
    except KeyboardInterrupt:
        print("kinelib: interrupted", file=sys.stderr)
        return 130
    except (ValueError, TypeError, OSError, KeyError, RuntimeError, ImportError) as error:
        if given.traceback:
            raise
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"kinelib {given.command}: {message}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
