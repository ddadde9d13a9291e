"""The command line: ``python -m kinelib COMMAND``. Each command is a thin door to a function of the library."""

from __future__ import annotations

import argparse
import ast
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kinelib

if TYPE_CHECKING:
    from kinelib.tracks.tracks import Poke

PROFILES = ("smoke", "lab", "paper")
STAGES = ("autoencoder", "planner", "regression", "direct")

EXAMPLES = {
    None: """examples:
  python -m kinelib check                        is this machine ready?
  python -m kinelib run                          execute the notebooks that are not up to date
  python -m kinelib run 03 -p steps 50           one notebook with a parameter of its own
  python -m kinelib COMMAND --help               more about one command""",
    "check": "exit status: 0 when everything required is [OK], 1 when something is [FAIL]; [--] marks optional things.",
    "run": """examples:
  python -m kinelib run                          all notebooks, profile smoke
  python -m kinelib run 01 05 --jobs 2           two notebooks at once
  python -m kinelib run --profile lab --keep-going
  python -m kinelib run 03 -p steps 50 -p seed 1 parameters of the notebook, checked against its parameters cell
  python -m kinelib run --dry-run                what would run, and why

Results land in runs/<profile>/NN_slug/. exit status: 0 done, 1 a notebook failed, 2 a rule was broken, 130 interrupted.""",
    "train": """examples:
  python -m kinelib train zipmo                                  all stages, profile lab
  python -m kinelib train zipmo --stage planner --resume         go on after an interruption
  python -m kinelib train zipmo --stage autoencoder --seconds 60 --out runs/try

Ctrl-C saves the state first; --resume continues from it. Later stages need the autoencoder's checkpoint in --out.""",
    "track": """examples:
  python -m kinelib track clip.mp4 --out tracks.parquet
  python -m kinelib track clip.mp4 --out tracks.parquet --tracker dis --grid 24 --frames 32
  python -m kinelib track folder-of-pictures --out tracks.parquet --caption "a cup slides left" --overwrite""",
    "generate": """examples:
  python -m kinelib generate tracks --frame street.jpg --poke 0.1,0.2,0.6,0.2 --out futures.npz
  python -m kinelib generate tracks --frame street.jpg --poke -0.5,0,0,0,0.5 --poke 0.4,0.4,0.4,0.4 --samples 16 --out f.npz
  python -m kinelib generate tracks --frame scene.png --text "the red car turns left" --out futures.npz

A poke is x,y,gx,gy[,t]: the point at (x, y) shall be at (gx, gy) at time t. Coordinates run from -1 (left, top) to 1
(right, bottom) of the frame; t runs from just above 0 (first frame) to 1 (last frame, the default). A poke whose goal is
its start holds the point still.""",
    "evaluate": """example:
  python -m kinelib evaluate zipmo --json results.json
  python -m kinelib evaluate zipmo --real runs/data/real --json results.json
  python -m kinelib evaluate prompts --json prompts.json     do sentences steer motion?
  python -m kinelib evaluate video --json video.json         against a video model, in miniature
  python -m kinelib evaluate ablation --json ablation.json   trains and measures every temporal compression, hours

An interrupted evaluation of zipmo or ablation goes on where it stopped.
Writes metric, value, interval, n, seeds, baseline values and target of every row.""",
    "parity": """example:
  python -m kinelib parity reference

DIR holds pairs NAME_weights.safetensors and NAME_io.safetensors: weights of an official network, and its recorded inputs
and outputs. exit status: 1 when an output differs by more than 1e-4 relative to the largest recorded value.""",
    "bench": """example:
  python -m kinelib bench zipmo --threads 2

Times latent generation and direct generation of tracks side by side: same machine, same steps, one run.""",
}


def parser() -> argparse.ArgumentParser:
    """Builds the parser of all commands."""
    shape = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(
        "python -m kinelib", description=kinelib.__doc__.split(". ")[0] + ".", epilog=EXAMPLES[None], formatter_class=shape
    )
    top.add_argument("--version", action="version", version=f"kinelib {kinelib.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=summary, description=summary, epilog=EXAMPLES[name], formatter_class=shape)
        one.add_argument("--traceback", action="store_true", help="show where in the code an error came from")
        return one

    command("check", "says whether this machine has what the course needs")

    run = command("run", "executes notebooks end to end, those that are not up to date")
    run.add_argument("names", nargs="*", metavar="NN", help="numbers or names of notebooks (default: all)")
    run.add_argument("--profile", choices=PROFILES, default="smoke", help="how much to spend (default: smoke)")
    run.add_argument("--jobs", type=_at_least_one, default=1, metavar="N", help="how many run at once (default: 1)")
    run.add_argument("--keep-going", action="store_true", help="run the others after one failed")
    run.add_argument("--dry-run", action="store_true", help="only say what would run, and why")
    run.add_argument("--force", action="store_true", help="run what is up to date as well")
    run.add_argument("--solutions", action="store_true", help="execute with the exercises solved, as the tests do")
    run.add_argument("--gallery", action="store_true", help="copy the figures into figures/ afterwards")
    run.add_argument("--timeout-per-cell", type=_at_least_one, default=600, metavar="S", help="seconds (default: 600)")
    run.add_argument("--seed", type=int, help="the notebooks' parameter seed")
    run.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a notebook's parameter")

    train = command("train", "trains the networks of a system and writes checkpoint folders")
    train.add_argument("system", choices=["zipmo"])
    train.add_argument("--stage", choices=STAGES, help="one stage (default: all, in order)")
    train.add_argument("--profile", choices=PROFILES, default="lab", help="size and length (default: lab)")
    train.add_argument("--out", type=Path, help="folder of the checkpoints (default: runs/<profile>/zipmo)")
    train.add_argument("--resume", action="store_true", help="go on from the saved state")
    train.add_argument("--overwrite", action="store_true", help="start afresh and replace an older checkpoint")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--real", type=Path, metavar="DIR", help="folder of track shards of real video to mix in")
    train.add_argument("--start", type=Path, metavar="DIR", help="begin with the weights of earlier checkpoints")
    length = train.add_mutually_exclusive_group()
    length.add_argument("--steps", type=_at_least_one, help="train for this many steps")
    length.add_argument("--seconds", type=_positive, help="train for this long")

    track = command("track", "tracks points through a video")
    track.add_argument("video", type=Path, help="mp4, avi, gif, or a folder of pictures")
    track.add_argument("--out", type=Path, required=True, help="the .parquet file to write")
    track.add_argument("--tracker", default="lk", choices=["lk", "dis", "cotracker", "cotracker-online"], help="default: lk")
    where = track.add_mutually_exclusive_group()
    where.add_argument("--points", type=_at_least_one, default=256, help="corners and random points (default: 256)")
    where.add_argument("--grid", type=_at_least_one, metavar="N", help="an N x N grid of points instead")
    track.add_argument("--start", type=int, default=0, help="first frame to read (default: 0)")
    track.add_argument("--frames", type=_at_least_one, default=64, help="read no more frames than this (default: 64)")
    track.add_argument("--stride", type=_at_least_one, default=1, help="read every n-th frame (default: 1)")
    track.add_argument("--seed", type=int, default=0, help="of the random points (default: 0)")
    track.add_argument("--caption", default="", help="what the video shows, in words")
    track.add_argument("--overwrite", action="store_true", help="replace an existing file")

    generate = command("generate", "generates futures of a picture from pokes and words")
    generate.add_argument("what", choices=["tracks"])
    generate.add_argument("--frame", type=Path, required=True, metavar="IMG", help="the first frame, any picture file")
    generate.add_argument("--poke", action="append", default=[], metavar="x,y,gx,gy[,t]", help="repeat for several pokes")
    generate.add_argument("--samples", type=_at_least_one, default=8, metavar="K", help="how many futures (default: 8)")
    generate.add_argument("--seed", type=int, default=0)
    generate.add_argument("--grid", type=_at_least_one, default=16, metavar="N", help="N x N points asked for (default: 16)")
    generate.add_argument("--frames", type=_at_least_one, default=64, metavar="T", help="length of a future (default: 64)")
    generate.add_argument("--steps", type=_at_least_one, default=6, help="of the sampler (default: 6)")
    generate.add_argument("--text", default="", metavar="SENTENCE", help="what shall happen, in words")
    generate.add_argument("--guidance", type=float, default=1.0, help="how strongly pokes and text pull; 1 is off")
    generate.add_argument("--text-guidance", type=float, default=1.0, help="how strongly the text pulls beside; 1 is off")
    generate.add_argument("--correction", metavar="NAME", help="gradient, snap or gradient+snap (default: none)")
    generate.add_argument("--overwrite", action="store_true", help="replace an existing file")
    generate.add_argument("--checkpoint", type=Path, metavar="DIR", help="checkpoint folder (default: the shipped one)")
    generate.add_argument("--out", type=Path, required=True, metavar="FILE.npz")

    evaluate = command("evaluate", "measures a system on held-out data, beside its baselines and targets")
    evaluate.add_argument("system", choices=["zipmo", "prompts", "video", "ablation"])
    evaluate.add_argument("--json", type=Path, required=True, metavar="OUT", help="where the table goes")
    evaluate.add_argument("--profile", choices=PROFILES, default="lab", help="how many scenes (default: lab)")
    evaluate.add_argument("--checkpoint", type=Path, metavar="DIR", help="checkpoint folder (default: the shipped one)")
    evaluate.add_argument(
        "--real", type=Path, metavar="DIR", help="track shards of real video, the held-out clips of which are measured too"
    )

    parity = command("parity", "compares our networks with recorded outputs of the official ones")
    parity.add_argument("folder", type=Path, metavar="DIR")

    bench = command("bench", "measures speed side by side")
    bench.add_argument("system", choices=["zipmo"])
    bench.add_argument("--threads", type=_at_least_one, default=2, help="CPU threads (default: 2)")
    bench.add_argument("--json", type=Path, metavar="OUT", help="where to write the numbers as well")
    bench.add_argument("--compile", action="store_true", help="measure through torch.compile as well (takes minutes)")
    return top


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
            from kinelib.tracks.track_video import track_video

            tracks = track_video(
                given.video,
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
        case "generate":
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
        case "evaluate":
            print(_evaluate(given))
        case "parity":
            from kinelib.official import parity_report

            report, good = parity_report(given.folder)
            print(report)
            return 0 if good else 1
        case "bench":
            from kinelib.bench import bench_zipmo

            print(bench_zipmo(threads=given.threads, json_path=given.json, compile=given.compile))
    return 0


def _evaluate(given: argparse.Namespace) -> str:
    say = lambda line: print(line, file=sys.stderr, flush=True)
    match given.system:
        case "zipmo":
            from kinelib.zipmo.evaluate import evaluate

            options = dict(profile_name=given.profile, checkpoint=given.checkpoint, real=given.real)
            return evaluate(given.json, say=say, **options)
        case "prompts":
            from kinelib.zipmo.prompts import evaluate_prompts

            return evaluate_prompts(given.json, profile_name=given.profile, checkpoint=given.checkpoint)
        case "video":
            from kinelib.zipmo.video_comparison import evaluate_video

            return evaluate_video(given.json, profile_name=given.profile, checkpoint=given.checkpoint)
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
    from kinelib.zipmo.train import train_stage

    out = given.out or Path("runs") / given.profile / "zipmo"
    for stage in [given.stage] if given.stage else STAGES:
        result = train_stage(
            stage,
            given.profile,
            out,
            resume=given.resume,
            overwrite=given.overwrite,
            steps=given.steps,
            seconds=given.seconds,
            seed=given.seed,
            real=given.real,
            start=given.start,
        )
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


def _at_least_one(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return value


if __name__ == "__main__":
    sys.exit(main())
