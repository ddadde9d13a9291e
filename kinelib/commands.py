"""What the command line takes: every command, its options, and the examples its --help ends with."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import kinelib

PROFILES = ("smoke", "lab", "paper")

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
  python -m kinelib train kimodo --stage procedural              weights without a licence to mind

  python -m kinelib train kinmo                                  aligner, tokenizer, generator, flat baseline, control
  python -m kinelib robots demos; python -m kinelib train robots what plans and acts, from scripted demonstrations

Stages of zipmo: autoencoder, planner, regression, direct, autoregressive, video.
Stages of kimodo: denoiser, procedural, evaluator, and the ablations one-stage, global-root, no-curriculum, no-smooth-root,
no-extra-tokens. Stages of kinmo: aligner, tokenizer, generator, flat, control, and the ablations aligner-global,
aligner-group, aligner-no-cross, aligner-flat. Stages of robots: guess, planner, cloning, inverse,
affordance, policy.

Ctrl-C saves the state first; --resume continues from it. Later stages need the earlier ones' checkpoints in --out.""",
    "track": """examples:
  python -m kinelib track clip.mp4 --out tracks.parquet
  python -m kinelib track clip.mp4 --out tracks.parquet --tracker dis --grid 24 --frames 32
  python -m kinelib track folder-of-pictures --out tracks.parquet --caption "a cup slides left" --overwrite
  python -m kinelib track data/samples my-videos --clips --hold-out cup --out runs/data/real

With --clips a shard that is there is kept, so an interrupted run goes on where it stopped.""",
    "generate": """examples:
  python -m kinelib generate tracks --frame street.jpg --poke 0.1,0.2,0.6,0.2 --out futures.npz
  python -m kinelib generate motion --prompt "A person walks forward." --out walk.npz
  python -m kinelib generate motion --help               more about either""",
    "generate tracks": """examples:
  python -m kinelib generate tracks --frame street.jpg --poke 0.1,0.2,0.6,0.2 --out futures.npz
  python -m kinelib generate tracks --frame street.jpg --poke -0.5,0,0,0,0.5 --poke 0.4,0.4,0.4,0.4 --samples 16 --out f.npz
  python -m kinelib generate tracks --frame scene.png --text "the red car turns left" --out futures.npz

A poke is x,y,gx,gy[,t]: the point at (x, y) shall be at (gx, gy) at time t. Coordinates run from -1 (left, top) to 1
(right, bottom) of the frame; t runs from just above 0 (first frame) to 1 (last frame, the default). A poke whose goal is
its start holds the point still.""",
    "generate motion": """examples:
  python -m kinelib generate motion --prompt "A person walks forward." --duration 4 --out walk.npz
  python -m kinelib generate motion --prompt "A person walks." --prompt "A person waves with the left hand." --out both.bvh
  python -m kinelib generate motion --prompt "A person walks." --constraints path.json --samples 3 --out walk.glb
  python -m kinelib generate motion --prompt "A person walks forward." --stage procedural --out free.npz   MIT weights
  python -m kinelib generate motion --system kinmo --prompt "A person walks." --group "left_arm=It is raised." --out a.npz

Two systems: kimodo (the default; constraints, clean-up) and kinmo (sentences for single groups of the body).""",
    "annotate": """examples:
  python -m kinelib annotate walk.bvh --out walk.jsonl
  python -m kinelib annotate clips/*.npz --keyframes --out records.jsonl

Six groups and fifteen pairs in plain sentences, by rules. Without --out the sentences are printed.""",
    "retrieve": """examples:
  python -m kinelib retrieve "A person waves with the left hand." --out found.npz
  python -m kinelib retrieve --motion walk.bvh --count 10""",
    "export": """examples:
  python -m kinelib export walk.npz walk.bvh
  python -m kinelib export capture.bvh walk.glb --fps 30 --skeleton smplx22""",
    "evaluate": """examples:
  python -m kinelib evaluate zipmo --json results.json
  python -m kinelib evaluate zipmo --real runs/data/real --json results.json
  python -m kinelib evaluate prompts --json prompts.json     do sentences steer motion?
  python -m kinelib evaluate video --json video.json         against a video model, in miniature
  python -m kinelib evaluate ablation --json ablation.json   trains and measures every temporal compression, hours
  python -m kinelib evaluate kimodo --json kimodo.json       do bodies do what prompts and constraints say?
  python -m kinelib evaluate kimodo-ablation --json ablation.json   eleven small trainings, one part changed in each, an hour
  python -m kinelib evaluate kinmo --json kinmo.json         retrieval, generation, edits, control; --part retrieval for one
  python -m kinelib evaluate kinmo-ablation --json ablation.json   ten trainings with parts left out, 45 minutes
  python -m kinelib evaluate robots --suite metaworld --json robots.json   success in held-out scenes
  python -m kinelib evaluate robots --curve 5=runs/robots-5 --curve 20=runs/robots --json c.json   success by demonstrations

An interrupted evaluation of zipmo, ablation, kimodo-ablation, kinmo-ablation or robots goes on where it stopped.
Writes metric, value, interval, n, seeds, baseline values and target of every row.""",
    "robots": """examples:
  python -m kinelib robots demos                                      ten Meta-World tasks, eighty demonstrations each
  python -m kinelib robots demos --task reach --task push --demos 5 --out runs/try

Shards that are there and whole are kept, so that an interrupted run goes on where it stopped. `train robots` reads them.""",
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

    def texts(name: str) -> dict:
        return dict(epilog=EXAMPLES.get(name), formatter_class=shape)

    def command(name: str, summary: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=summary, description=summary, **texts(name))
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
    train.add_argument("system", choices=["zipmo", "kimodo", "kinmo", "robots"])
    train.add_argument("--stage", help="one stage (default: those that are shipped, in order)")
    train.add_argument("--profile", choices=PROFILES, default="lab", help="size and length (default: lab)")
    train.add_argument("--out", type=Path, help="folder of the checkpoints (default: runs/<profile>/<system>)")
    train.add_argument("--resume", action="store_true", help="go on from the saved state")
    train.add_argument("--overwrite", action="store_true", help="start afresh and replace an older checkpoint")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--real", type=Path, metavar="DIR", help="zipmo: folder of track shards of real video to mix in")
    train.add_argument("--captured", type=Path, metavar="DIR", help="kimodo, kinmo: folder of captured clips to mix in")
    train.add_argument("--start", type=Path, metavar="DIR", help="begin with the weights of earlier checkpoints")
    train.add_argument("--demos", type=Path, metavar="DIR", help="robots: folder of demonstrations (default: OUT/demos)")
    train.add_argument(
        "--labelled", type=_at_least_one, metavar="N", help="robots: demonstrations a task whose actions are learnt"
    )
    train.add_argument(
        "--recordings",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="robots: let the policy learn from the other demonstrations too, from actions read off their tracks",
    )
    train.add_argument(
        "--noise",
        type=_positive,
        metavar="SD",
        help="robots: on what policy and cloning see in training, in standard deviations (default 0.1; LIBERO: 0.3)",
    )
    length = train.add_mutually_exclusive_group()
    length.add_argument("--steps", type=_at_least_one, help="train for this many steps")
    length.add_argument("--seconds", type=_positive, help="train for this long")

    track = command("track", "tracks points through a video, or makes training clips of many")
    track.add_argument("video", type=Path, nargs="+", help="mp4, avi, gif, or a folder of pictures; with --clips, of videos")
    track.add_argument("--out", type=Path, required=True, help="the .parquet file to write; with --clips, the folder")
    many = track.add_argument_group("training clips of many videos")
    many.add_argument("--clips", action="store_true", help="overlapping windows, crops and mirror images, a shard a video")
    many.add_argument(
        "--hold-out", action="append", default=[], metavar="NAME", help="a video only to measure on; repeatable"
    )
    many.add_argument("--hop", type=_at_least_one, help="frames between the starts of two windows (default: 8)")
    many.add_argument("--crops", type=_at_least_one, help="random crops of a window besides the whole (default: 2)")
    many.add_argument("--shard", type=_part, default=(0, 1), metavar="i/n", help="only videos i, i + n, ... (default: 0/1)")
    track.add_argument("--tracker", default="lk", choices=["lk", "dis", "cotracker", "cotracker-online"], help="default: lk")
    where = track.add_mutually_exclusive_group()
    where.add_argument("--points", type=_at_least_one, default=256, help="corners and random points (default: 256)")
    where.add_argument("--grid", type=_at_least_one, metavar="N", help="an N x N grid of points instead (with --clips: 24)")
    track.add_argument("--start", type=int, default=0, help="first frame to read (default: 0)")
    track.add_argument("--frames", type=_at_least_one, default=64, help="read no more frames than this (default: 64)")
    track.add_argument("--stride", type=_at_least_one, default=1, help="read every n-th frame (default: 1)")
    track.add_argument("--seed", type=int, default=0, help="of the random points (default: 0)")
    track.add_argument("--caption", default="", help="what the video shows, in words")
    track.add_argument("--overwrite", action="store_true", help="replace an existing file")

    generate = command("generate", "generates motion: of a picture's points, or of a body").add_subparsers(
        dest="what", required=True, metavar="tracks|motion"
    )
    tracks = generate.add_parser("tracks", help="futures of a picture from pokes and words", **texts("generate tracks"))
    tracks.add_argument("--frame", type=Path, required=True, metavar="IMG", help="the first frame, any picture file")
    tracks.add_argument("--poke", action="append", default=[], metavar="x,y,gx,gy[,t]", help="repeat for several pokes")
    tracks.add_argument("--samples", type=_at_least_one, default=8, metavar="K", help="how many futures (default: 8)")
    tracks.add_argument("--seed", type=int, default=0)
    tracks.add_argument("--grid", type=_at_least_one, default=16, metavar="N", help="N x N points asked for (default: 16)")
    tracks.add_argument("--frames", type=_at_least_one, default=64, metavar="T", help="length of a future (default: 64)")
    tracks.add_argument("--steps", type=_at_least_one, default=3, help="of the sampler (default: 3)")
    tracks.add_argument("--text", default="", metavar="SENTENCE", help="what shall happen, in words")
    tracks.add_argument("--guidance", type=float, default=1.0, help="how strongly pokes and text pull; 1 is off")
    tracks.add_argument(
        "--text-guidance", type=float, default=3.0, help="how strongly the text pulls beside (1: off; default: 3)"
    )
    tracks.add_argument("--correction", metavar="NAME", help="gradient, snap or gradient+snap (default: none)")
    tracks.add_argument("--overwrite", action="store_true", help="replace an existing file")
    tracks.add_argument("--checkpoint", type=Path, metavar="DIR", help="checkpoint folder (default: the shipped one)")
    tracks.add_argument("--out", type=Path, required=True, metavar="FILE.npz")

    motion = generate.add_parser("motion", help="a body's motion from sentences and constraints", **texts("generate motion"))
    motion.add_argument("--system", choices=["kimodo", "kinmo"], default="kimodo", help="default: kimodo")
    motion.add_argument("--prompt", action="append", required=True, metavar="SENTENCE", help="repeat for a sequence")
    motion.add_argument(
        "--group", action="append", default=[], metavar="NAME=SENTENCE", help="kinmo: of a group or pair; repeat for several"
    )
    motion.add_argument(
        "--duration",
        action="append",
        type=_positive,
        default=[],
        metavar="S",
        help="seconds, one for all prompts or one each (default: 4)",
    )
    motion.add_argument("--constraints", type=Path, metavar="FILE", help="kimodo: JSON of keyframes, paths, ...")
    motion.add_argument("--samples", type=_at_least_one, default=1, metavar="K", help="how many motions (default: 1)")
    motion.add_argument("--seed", type=int, default=0)
    motion.add_argument("--steps", type=_at_least_one, help="of the solver (default: 20; kinmo: 10 a level)")
    motion.add_argument("--solver", choices=["dpm", "ddim"], default="dpm", help="kimodo (default: dpm)")
    motion.add_argument(
        "--guidance",
        type=float,
        nargs="+",
        metavar="W",
        help="of text, and for kimodo of constraints (default: 2 1, published 2 2; kinmo: 3)",
    )
    motion.add_argument("--raw", action="store_true", help="kimodo: no clean-up, feet may slide, constraints may be missed")
    motion.add_argument(
        "--published", action="store_true", help="kimodo: sample as the paper does, constraints are not pulled at every step"
    )
    motion.add_argument("--stage", help="which network (default: denoiser, or kinmo: generator)")
    motion.add_argument("--checkpoint", type=Path, metavar="DIR", help="checkpoint folder (default: the shipped one)")
    motion.add_argument("--overwrite", action="store_true", help="replace existing files")
    motion.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help=".npz, .bvh or .glb; several samples are numbered"
    )

    for one in (tracks, motion):
        one.add_argument("--traceback", action="store_true", help="show where in the code an error came from")

    export = command("export", "writes a motion in another format")
    export.add_argument("source", type=Path, metavar="IN", help=".npz, .bvh, or a robot's .csv")
    export.add_argument("out", type=Path, metavar="OUT", help=".npz, .bvh, .glb, .csv or .mp4")
    export.add_argument("--fps", type=_positive, help="frames a second (default: those of IN)")
    export.add_argument("--skeleton", help="carry the motion over to this skeleton (default: that of IN)")
    export.add_argument("--overwrite", action="store_true", help="replace an existing file")

    annotate = command("annotate", "puts motion files into words")
    annotate.add_argument("source", type=Path, nargs="+", metavar="IN", help=".npz, .bvh, or a robot's .csv")
    annotate.add_argument("--out", type=Path, metavar="FILE.jsonl", help="where the records go (default: print sentences)")
    annotate.add_argument("--text", action="append", default=[], metavar="SENTENCE", help="a global description; repeatable")
    annotate.add_argument("--keyframes", action="store_true", help="find and describe keyframes too")
    annotate.add_argument("--overwrite", action="store_true", help="replace an existing file")

    retrieve = command("retrieve", "looks clips up by words or by a motion")
    retrieve.add_argument("text", nargs="?", default="", metavar="SENTENCE", help="what is looked for")
    retrieve.add_argument("--motion", type=Path, metavar="FILE", help="a motion instead of a sentence")
    retrieve.add_argument("--count", type=_at_least_one, default=5, metavar="K", help="how many (default: 5)")
    retrieve.add_argument("--captured", type=Path, metavar="DIR", help="folder of captured clips (default: KINELIB_DATA)")
    retrieve.add_argument("--checkpoint", type=Path, metavar="DIR", help="checkpoint folder (default: the shipped one)")
    retrieve.add_argument("--out", type=Path, metavar="FILE", help="where the nearest clip goes: .npz, .bvh or .glb")
    retrieve.add_argument("--overwrite", action="store_true", help="replace an existing file")

    evaluate = command("evaluate", "measures a system on held-out data, beside its baselines and targets")
    evaluate.add_argument(
        "system",
        choices=["zipmo", "prompts", "video", "ablation", "kimodo", "kimodo-ablation", "kinmo", "kinmo-ablation", "robots"],
    )
    evaluate.add_argument("--json", type=Path, required=True, metavar="OUT", help="where the table goes")
    evaluate.add_argument("--profile", choices=PROFILES, default="lab", help="how many scenes (default: lab)")
    evaluate.add_argument("--checkpoint", type=Path, metavar="DIR", help="checkpoint folder (default: the shipped one)")
    evaluate.add_argument(
        "--real", type=Path, metavar="DIR", help="track shards of real video, the held-out clips of which are measured too"
    )

    evaluate.add_argument("--stage", default="denoiser", help="kimodo: which network (default: denoiser)")
    evaluate.add_argument(
        "--captured", type=Path, metavar="DIR", help="kimodo, kinmo: folder of captured clips (default: KINELIB_DATA)"
    )
    evaluate.add_argument("--part", action="append", metavar="NAME", help="kinmo: one table; repeatable (default: all)")

    evaluate.add_argument("--suite", default="metaworld", help="robots: whose tasks (default: metaworld)")
    evaluate.add_argument("--task", action="append", metavar="NAME", help="robots: one task; repeatable")
    evaluate.add_argument(
        "--way",
        action="append",
        metavar="NAME",
        help="robots: one way of acting, zipmo: one method; repeatable (default: all)",
    )
    evaluate.add_argument("--episodes", type=_at_least_one, metavar="N", help="robots: of every task and way")
    evaluate.add_argument(
        "--curve",
        action="append",
        type=_numbered,
        metavar="N=DIR",
        help="robots: ledgers after N demonstrations; repeatable",
    )

    robots = command("robots", "makes demonstrations of robot tasks with scripted experts")
    robots.add_argument("what", choices=["demos"], help="demos: successful episodes with pictures, exact tracks and actions")
    robots.add_argument("--suite", default="metaworld", help="whose tasks (default: metaworld)")
    robots.add_argument("--task", action="append", metavar="NAME", help="one task; repeatable (default: the profile's)")
    robots.add_argument("--demos", type=_at_least_one, metavar="N", help="of each task (default: the profile's)")
    robots.add_argument("--profile", choices=PROFILES, default="lab", help="how many (default: lab)")
    robots.add_argument("--held-out", action="store_true", help="of seeds that are held out from training")
    robots.add_argument("--out", type=Path, metavar="DIR", help="folder of demos/ (default: runs/<profile>/robots)")

    parity = command("parity", "compares our networks with recorded outputs of the official ones")
    parity.add_argument("folder", type=Path, metavar="DIR")

    bench = command("bench", "measures speed side by side")
    bench.add_argument("system", choices=["zipmo", "kimodo"])
    bench.add_argument("--threads", type=_at_least_one, default=2, help="CPU threads (default: 2)")
    bench.add_argument("--json", type=Path, metavar="OUT", help="where to write the numbers as well")
    bench.add_argument("--compile", action="store_true", help="measure through torch.compile as well (takes minutes)")
    return top


def _at_least_one(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _numbered(text: str) -> tuple[int, Path]:
    number, equals, folder = text.partition("=")
    if not (equals and folder):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number and a folder such as 5=runs/robots-5")
    return _at_least_one(number), Path(folder)


def _part(text: str) -> tuple[int, int]:
    part, slash, parts = text.partition("/")
    if not (slash and part.isdigit() and parts.isdigit() and int(part) < int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a part such as 0/4, the first of four")
    return int(part), int(parts)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return value
