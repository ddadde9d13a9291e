"""The command line: helpful help, errors in one line, light start, and arguments that reach the right function."""

from __future__ import annotations

import subprocess
import sys
import types
from functools import partial

import pytest

from kinelib import __main__ as cli
from kinelib.bodies.motion_files import save_motion
from kinelib.bodies.procedural import procedural_clips
from kinelib.course.runner import Outcome
from kinelib.tracks.real import Windows

COMMANDS = (
    "check",
    "run",
    "train",
    "track",
    "generate",
    "evaluate",
    "parity",
    "bench",
    "export",
    "annotate",
    "retrieve",
    "robots",
)


def test_help_of_every_command_has_an_example_or_says_its_exit_status(capsys):
    for command in (*COMMANDS, "generate tracks", "generate motion"):
        with pytest.raises(SystemExit) as stopped:
            cli.main([*command.split(), "--help"])
        said = capsys.readouterr().out
        assert stopped.value.code == 0 and (
            "python -m kinelib " + command in said.split("\n\n", 1)[1] or "exit status" in said
        )
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    said = capsys.readouterr().out
    assert all(command in said for command in COMMANDS)


def test_numbers_that_help_names_are_the_librarys_own():
    from kinelib.commands import parser
    from kinelib.zipmo.flow import STEPS
    from kinelib.zipmo.forecast import TEXT_GUIDANCE

    given = parser().parse_args(["generate", "tracks", "--frame", "a.png", "--out", "b.npz"])
    assert (given.steps, given.text_guidance) == (STEPS, TEXT_GUIDANCE), "help loads nothing heavy, so it repeats them"


def test_help_is_light():
    code = "import sys; sys.argv = ['x', 'run', '--help']\nfrom kinelib.__main__ import main\ntry:\n    main()\nfinally:\n"
    code += "    assert not {'torch', 'numpy', 'papermill'} & set(sys.modules), 'help imported a heavy package'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--timeout-per-cell" in done.stdout


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.1,0.2,0.6,0.2", ((0.1, 0.2), (0.6, 0.2), 1.0)),
        ("-0.5,0,0,0,0.5", ((-0.5, 0.0), (0.0, 0.0), 0.5)),
        ("1,-1,1.5,-1,1e-2", ((1.0, -1.0), (1.5, -1.0), 0.01)),
        ("0, 0, 0, 0", ((0.0, 0.0), (0.0, 0.0), 1.0)),
    ],
)
def test_pokes_are_read(text, expected):
    poke = cli.parse_poke(text)
    assert (poke.start_xy, poke.goal_xy, poke.goal_time) == expected


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "a poke is x,y,gx,gy"),
        ("1,2,3", "3 numbers; a poke is"),
        ("0,0,0,0,1,1", "6 numbers; a poke is"),
        ("0,0,a,0", "every part is a number"),
        ("0,0,0,0,", "every part is a number"),
        ("nan,0,0,0", "finite"),
        ("0,0,inf,0", "finite"),
        ("1.2,0,0,0", r"x = 1.2 lies outside the frame.*2 \* pixel / size - 1"),
        ("0,0,120,64", "gx = 120 lies outside the frame"),
        ("0,0,1,0,0", "t = 0 is not a time after the first frame"),
        ("0,0,1,0,2", "t = 2 is not a time"),
    ],
)
def test_bad_pokes_say_what_to_write(text, word):
    with pytest.raises(ValueError, match=word):
        cli.parse_poke(text)


def test_a_poke_that_starts_with_a_minus_is_no_option(monkeypatch):
    seen = given_to(monkeypatch, "kinelib.zipmo.generate", "generate_tracks", types.SimpleNamespace(shape=(3, 256, 64, 2)))
    pokes = ["--poke", "-0.5,0,0,0", "--poke=0.1,0.1,0.2,0.2"]
    assert (
        cli.main(["generate", "tracks", "--frame", "a.png", *pokes, "--samples", "3", "--seed", "5", "--out", "f.npz"]) == 0
    )
    (frame, read), named = seen
    assert frame.name == "a.png" and [poke.start_xy for poke in read] == [(-0.5, 0.0), (0.1, 0.1)]
    assert named["samples"] == 3 and named["seed"] == 5 and named["out"].name == "f.npz"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-1e-3", -1e-3),
        ("true", True),
        ("None", None),
        ("text", "text"),
        ("[1, 2]", [1, 2]),
        ("0x10", 16),
        ("a b", "a b"),
    ],
)
def test_parameter_values(text, value):
    assert cli.parameter_value(text) == value and type(cli.parameter_value(text)) is type(value)


def given_to(monkeypatch, module, function, result):
    """Replaces a module by one whose function keeps what it was called with, and returns where."""
    seen: list = []
    record = types.ModuleType(module)
    setattr(record, function, lambda *given, **named: seen.extend([given, named]) or result)
    monkeypatch.setitem(sys.modules, module, record)
    return seen


def test_run_passes_everything_on_and_turns_failure_into_a_status(monkeypatch, capsys):
    seen = []
    outcomes = [Outcome("00_a", "ran", "", 1.0, 10, 1, 1, {"a": 2.5}), Outcome("03_b", "failed", "cell 2: no")]
    monkeypatch.setattr("kinelib.course.runner.run", lambda *given, **named: seen.extend([given, named]) or outcomes)
    status = cli.main(
        ["run", "00", "3", "--profile", "lab", "--jobs", "2", "-p", "steps", "5", "--seed", "4", "--keep-going"]
    )
    said = capsys.readouterr().out
    assert seen[0] == (["00", "3"], "lab", 2, True, 600, False)
    assert seen[1]["parameters"] == {"steps": 5, "seed": 4} and not seen[1]["solutions"]
    assert status == 1 and "03_b: failed: cell 2: no" in said and "2.5" in said
    outcomes.pop()
    assert cli.main(["run"]) == 0


def test_train_runs_all_stages_in_order_and_stops_when_interrupted(monkeypatch, capsys):
    calls = []

    def train_stage(stage, *given, **named):
        calls.append((stage, given, named))
        return types.SimpleNamespace(steps=1, seconds=2.0, stopped_early=stage == stop)

    monkeypatch.setattr("kinelib.zipmo.train.train_stage", train_stage)
    monkeypatch.setattr("kinelib.kimodo.train.train_stage", train_stage)
    monkeypatch.setattr("kinelib.kinmo.train.train_stage", train_stage)
    stop = None
    assert cli.main(["train", "zipmo", "--resume", "--seconds", "1.5"]) == 0
    assert [call[0] for call in calls] == ["autoencoder", "planner", "regression", "direct"]
    assert calls[0][2]["resume"] and calls[0][2]["seconds"] == 1.5 and calls[0][2]["steps"] is None
    calls.clear()
    assert cli.main(["train", "kimodo", "--captured", "clips", "--out", "here"]) == 0
    assert [call[0] for call in calls] == ["denoiser", "procedural", "evaluator"]
    assert str(calls[0][2]["captured"]) == "clips" and "real" not in calls[0][2] and str(calls[0][1][1]) == "here"
    calls.clear()
    assert cli.main(["train", "kinmo"]) == 0
    assert [call[0] for call in calls] == ["aligner", "tokenizer", "generator", "flat", "control"]
    calls.clear()
    stop = "planner"
    assert cli.main(["train", "zipmo"]) == 130 and len(calls) == 2
    assert "Go on with --resume" in capsys.readouterr().out


def test_motion_comes_from_either_system_with_its_own_options(monkeypatch, capsys):
    calls = {}

    def generate_motions(prompts, seconds, *, system, **options):
        calls[system] = options
        return [types.SimpleNamespace(seconds=4.0)]

    for system in ("kimodo", "kinmo"):
        monkeypatch.setattr(f"kinelib.{system}.write_motions.generate_motions", partial(generate_motions, system=system))
    say = ["generate", "motion", "--prompt", "A person walks.", "--out", "walk.npz"]
    assert cli.main(say) == 0 and cli.main([*say, "--guidance", "1", "3", "--raw"]) == 0
    assert calls["kimodo"]["guidance"] == (1.0, 3.0) and calls["kimodo"]["cleanup"] is False
    assert "steps" not in calls["kimodo"], "what is not given is the system's own to choose"
    assert cli.main([*say, "--system", "kinmo", "--group", "left_arm=It waves.", "--guidance", "2", "--steps", "5"]) == 0
    assert calls["kinmo"]["groups"] == ["left_arm=It waves."] and calls["kinmo"]["guidance"] == 2.0
    assert "wrote 1 motion" in capsys.readouterr().out
    for bad, word in (
        (["--group", "left_arm=It waves."], "--system kinmo"),
        (["--guidance", "2"], "2 numbers"),
        (["--system", "kinmo", "--constraints", "c.json"], "kimodo"),
        (["--system", "kinmo", "--guidance", "2", "2"], "1 number"),
    ):
        assert cli.main([*say, *bad]) == 2 and word in capsys.readouterr().err


def test_robots_commands_reach_their_functions(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr("kinelib.robots.train.demonstrate_stage", lambda *a, **k: calls.append((a, k)) or ["one"])
    monkeypatch.setattr("kinelib.robots.evaluate.evaluate_robots", lambda *a, **k: calls.append((a, k)) or "a table")
    done = types.SimpleNamespace(steps=1, seconds=2.0, stopped_early=False)
    monkeypatch.setattr("kinelib.robots.train.train_stage", lambda *a, **k: calls.append((a, k)) or done)
    assert cli.main(["robots", "demos", "--task", "reach", "--demos", "3", "--held-out", "--profile", "smoke"]) == 0
    assert calls[0][1]["tasks"] == ["reach"] and calls[0][1]["split"] == "held-out" and calls[0][1]["demos"] == 3
    assert cli.main(["evaluate", "robots", "--json", "r.json", "--way", "policy", "--episodes", "4"]) == 0
    assert calls[1][0][0] == "metaworld" and calls[1][1]["ways"] == ["policy"] and calls[1][1]["episodes"] == 4
    assert cli.main(["train", "robots", "--steps", "5", "--noise", "0.3"]) == 0
    assert [one[0][0] for one in calls[2:]] == ["guess", "planner", "cloning", "inverse", "affordance", "policy"]
    assert all("start" not in one[1] and one[1]["changes"] == {"noise": 0.3} for one in calls[2:])
    assert "a table" in capsys.readouterr().out


def test_annotate_prints_sentences_and_retrieve_wants_one_question(tmp_path, capsys):
    motion = procedural_clips(1, 5, contents=("walk",), seconds=(2.0, 2.0))[0].motion
    assert cli.main(["annotate", str(save_motion(motion, tmp_path / "walk.npz"))]) == 0
    said = capsys.readouterr().out
    assert "torso" in said and "left_arm|right_arm" in said and said.startswith("walk (")
    assert cli.main(["retrieve"]) == 2 and "exactly one" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--profile", "smok"],
        ["run", "--jobs", "0"],
        ["train", "zipmo", "--steps", "0"],
        ["train", "zipmo", "--steps", "5", "--seconds", "5"],
        ["train", "zipmo", "--seconds", "nan"],
        ["train", "kimono"],
        ["generate", "tracks", "--out", "x.npz"],
        ["track", "clip.mp4"],
        ["track", "videos", "--clips", "--out", "shards", "--shard", "4/4"],
        ["track", "videos", "--clips", "--out", "shards", "--shard", "1"],
        ["frobnicate"],
        [],
    ],
)
def test_wrong_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2 and "error:" in capsys.readouterr().err


def test_errors_are_one_line_unless_the_traceback_is_asked_for(tmp_path, capsys):
    arguments = ["track", str(tmp_path / "none.mp4"), "--out", str(tmp_path / "t.parquet")]
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("kinelib track: ") and "none.mp4" in said and "Traceback" not in said
    assert not (tmp_path / "t.parquet").exists()
    with pytest.raises((OSError, ValueError)):
        cli.main([*arguments, "--traceback"])


def test_a_misspelled_notebook_parameter_runs_nothing(tmp_path, write_notebook, monkeypatch, capsys):
    write_notebook(tmp_path / "notebooks" / "00_a.ipynb", "1 / 0")
    monkeypatch.setattr("kinelib.course.runner.repository", lambda: tmp_path)
    monkeypatch.delenv("KINELIB_RUNS", raising=False)
    assert cli.main(["run", "-p", "step", "3"]) == 2
    assert "Did you mean 'steps'?" in capsys.readouterr().err and not (tmp_path / "runs").exists()
    assert cli.main(["run", "--dry-run", "-p", "steps", "3"]) == 0
    assert "00_a: would run: it has not completed before" in capsys.readouterr().out


def test_parity_reports_and_sets_the_status(monkeypatch, capsys, tmp_path):
    for good, status in ((True, 0), (False, 1)):
        given_to(monkeypatch, "kinelib.official", "parity_report", ("the table", good))
        assert cli.main(["parity", str(tmp_path)]) == status
        assert "the table" in capsys.readouterr().out


def test_track_a_shipped_clip(repository, tmp_path, capsys):
    clip = sorted((repository / "data" / "samples").glob("*.mp4"))[0]
    out = tmp_path / "tracks.parquet"
    arguments = ["track", str(clip), "--out", str(out), "--grid", "3", "--frames", "5"]
    assert cli.main(arguments) == 0
    assert "wrote 9 tracks of 5 frames" in capsys.readouterr().out
    before = out.read_bytes()
    assert cli.main(arguments) == 2 and out.read_bytes() == before
    assert cli.main([*arguments, "--overwrite"]) == 0
    for more in ([str(clip)], ["--hold-out", "cup"], ["--shard", "0/2"], ["--hop", "4"], ["--crops", "5"]):
        assert cli.main(["track", *more, *arguments[1:], "--overwrite"]) == 2
        assert "go with --clips" in capsys.readouterr().err


def test_track_makes_training_clips_of_folders(monkeypatch):
    seen = given_to(monkeypatch, "kinelib.tracks.video_shards", "write_video_shards", [])
    say = ["track", "a", "b.mp4", "--clips", "--out", "shards", "--hold-out", "cup", "--shard", "1/2", "--grid", "40"]
    assert cli.main(say) == 0
    (videos, out), options = seen
    assert [str(video) for video in videos] == ["a", "b.mp4"] and str(out) == "shards"
    assert options["held_out"] == ("cup",) and options["grid"] == 40
    assert (options["shard_index"], options["num_shards"]) == (1, 2)
    assert options["windows"] == Windows()
    assert cli.main([*say, "--hop", "4", "--crops", "5"]) == 0
    assert seen[3]["windows"] == Windows(hop=4, crops=5)


def test_the_version_is_the_package_s(repository):
    done = subprocess.run([sys.executable, "-m", "kinelib", "--version"], capture_output=True, text=True, cwd=repository)
    import kinelib

    assert done.stdout.strip() == f"kinelib {kinelib.__version__}"
