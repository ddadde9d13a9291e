"""The runner executes notebooks to the end or says why not, and never runs what is up to date."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kinelib.course import runner
from kinelib.course.notebooks import NotebookError
from kinelib.course.runner import Outcome, run, succeeded, table


@pytest.fixture(autouse=True)
def own_runs_folder(monkeypatch):
    """The runner under test chooses its own folders, also when these tests are run by a runner."""
    for name in ("KINELIB_RUNS", "KINELIB_HEADLESS", "KINELIB_DATA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def root(tmp_path, write_notebook):
    """A small repository: a library of two files, shipped data, and one notebook that uses them."""
    for name, text in {
        "kinelib/__init__.py": "",
        "kinelib/one.py": "from kinelib import two",
        "kinelib/two.py": "x = 1",
        "kinelib/unused.py": "x = 1",
        "data/checkpoints/net/config.json": "{}",
        "data/samples/a.txt": "a",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    # The library is named but not imported: what runs does not matter to these tests, what it depends on does.
    write_notebook(tmp_path / "notebooks" / "00_a.ipynb", "if False:\n    import kinelib.one", "print(6 * 7)")
    return tmp_path


def statuses(outcomes):
    return [one.status for one in outcomes]


def stamped(root, **options):
    """Marks everything as having run, as a successful run does, without executing anything."""
    for path in runner.find_notebooks(root / "notebooks"):
        task = runner._plan(path, {"profile": "smoke", **options}, root, root / "runs", solutions=False)
        task.out.mkdir(parents=True, exist_ok=True)
        task.executed.write_text("{}")
        stamp = {"parts": task.stamp, "made": [task.executed.name], "seconds": 1.0, "peak_mb": 100}
        (task.out / "stamp.json").write_text(json.dumps(stamp))


def dry(root, *names, **options):
    return run(names, dry_run=True, root=root, **options)


def test_a_dry_run_changes_nothing_and_says_why(root):
    (outcome,) = dry(root)
    assert (outcome.status, outcome.reason) == ("would run", "it has not completed before")
    assert not (root / "runs").exists()


def test_what_is_stamped_is_up_to_date(root):
    stamped(root)
    (outcome,) = dry(root)
    assert (outcome.status, outcome.seconds, outcome.peak_mb) == ("up to date", 1.0, 100)
    assert statuses(dry(root, force=True)) == ["would run"]
    assert statuses(run(root=root)) == ["up to date"]


@pytest.mark.parametrize("changed", ["kinelib/one.py", "kinelib/two.py", "data/samples", "data/checkpoints"])
def test_a_changed_dependency_is_named(root, changed):
    stamped(root)
    path = next(
        file for file in sorted(root.glob(f"{changed}*/**/*") if "data" in changed else [root / changed]) if file.is_file()
    )
    path.write_text(path.read_text() + "\n# edited\n")
    (outcome,) = dry(root)
    assert (outcome.status, outcome.reason) == ("would run", f"{changed} changed")


def test_what_is_not_imported_or_is_only_prose_does_not_matter(root):
    stamped(root)
    (root / "kinelib/unused.py").write_text("x = 2")
    path = root / "notebooks/00_a.ipynb"
    content = json.loads(path.read_text())
    content["cells"].insert(0, {"cell_type": "markdown", "id": "t", "metadata": {}, "source": "# New words"})
    path.write_text(json.dumps(content))
    assert statuses(dry(root)) == ["up to date"]


def test_code_parameters_and_versions_matter(root, write_notebook, monkeypatch):
    stamped(root)
    assert dry(root, seed=1)[0].reason == "its parameters changed"
    assert statuses(dry(root, profile="lab")) == ["would run"]
    with monkeypatch.context() as patch:
        patch.setattr("kinelib.course.stamps.importlib.metadata.version", lambda name: "9.9.9")
        assert dry(root)[0].reason == "torch changed"
    (root / "runs/smoke/00_a/00_a.ipynb").unlink()
    assert dry(root)[0].reason == "00_a.ipynb is gone"
    write_notebook(root / "notebooks/00_a.ipynb", "print(43)")
    assert "the notebook's code" in dry(root)[0].reason


def test_declared_needs_replace_the_default(root, write_notebook, monkeypatch):
    write_notebook(root / "notebooks/00_a.ipynb", "1", needs=["data/samples", "$KINELIB_DATA/videos"])
    stamped(root)
    (root / "data/checkpoints/net/config.json").write_text("{ }")
    assert statuses(dry(root)) == ["up to date"]
    (root / "outside/videos").mkdir(parents=True)
    (root / "outside/videos/a.mp4").write_text("a")
    monkeypatch.setenv("KINELIB_DATA", str(root / "outside"))
    assert dry(root)[0].reason == "$KINELIB_DATA/videos changed"
    write_notebook(root / "notebooks/00_a.ipynb", "1", needs=["data/nothing"])
    with pytest.raises(NotebookError, match="needs data/nothing, which is not there"):
        dry(root)


def test_a_stamp_cut_short_counts_as_none(root):
    stamped(root)
    stamp = root / "runs/smoke/00_a/stamp.json"
    stamp.write_text(stamp.read_text()[:-20])
    assert statuses(dry(root)) == ["would run"]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"parameters": {"step": 3}}, "Did you mean 'steps'"),
        ({"parameters": {"seed": "x"}}, "seed is a int"),
        ({"profile": "smok"}, "smoke, lab or paper"),
        ({"jobs": 0}, "at least 1"),
        ({"timeout_per_cell": 0}, "at least 1"),
        ({"names": ["07"]}, "names no notebooks"),
        ({"names": ["00"], "solutions": True}, "no solutions for 00_a"),
    ],
)
def test_a_wrong_question_runs_nothing(root, options, word):
    with pytest.raises(NotebookError, match=word):
        run(root=root, **options)
    assert not (root / "runs").exists()


def test_one_bad_notebook_stops_the_series_before_it_starts(root, write_notebook):
    write_notebook(root / "notebooks/01_b.ipynb", parameters='profile = "smoke"\nsteps = 2\nbatch = steps * 2')
    with pytest.raises(NotebookError, match="01_b.ipynb: the parameter batch is derived"):
        run(root=root)
    assert not (root / "runs").exists()


def test_the_table_and_the_verdict():
    outcomes = [
        Outcome("00_a", "ran", "", 12.34, 512, 3, 3, {"error_px": 1.23456, "name": "x"}),
        Outcome("01_b", "failed", "cell 2: ValueError: no", 1.0, None, 0, 1),
        Outcome("02_c", "not run"),
    ]
    lines = table(outcomes, "smoke").splitlines()
    assert lines[0].split() == ["notebook", "status", "seconds", "peak", "MB", "expectations"]
    assert lines[2].split() == ["00_a", "ran", "12.3", "512", "3/3"]
    assert lines[4].split() == ["02_c", "not", "run", "-", "-", "0/0"]
    assert "not to be compared with a paper's numbers" in lines[6] and lines[7].split() == ["00", "error_px", "1.235"]
    assert "not to be compared" not in table(outcomes, "paper")
    assert succeeded(outcomes[:1]) and not succeeded(outcomes[:2]) and not succeeded(outcomes[2:])


# What follows starts kernels.


@pytest.fixture(scope="module")
def executed(tmp_path_factory, write_notebook):
    """One series of notebooks that each go wrong in another way, among two that do not, executed once for the module."""
    root = tmp_path_factory.mktemp("series")
    lesson = "from kinelib import course\ncourse.start('00_good', profile, seed, steps=steps)"
    cells = {
        "00_good": [
            lesson,
            "import sys; print(sys.executable)",
            "course.expect(1, between=(0, 2), why='one')",
            "course.record({'a': steps})",
        ],
        "01_exits": ["import sys; sys.exit(0)", "print('never')"],
        "02_fails": ["x = 1", "1 / 0", "print('never')"],
        "03_caught": [
            lesson.replace("00_good", "03_caught"),
            "try:\n    course.expect(3, between=(0, 2), why='a small number')\nexcept Exception as error:\n    print(error)",
        ],
        "04_dies": ["import os; os._exit(9)"],
        "05_plain": ["", "assert profile == 'smoke' and steps == 3", "x = 1"],
    }
    for name, sources in cells.items():
        write_notebook(root / "notebooks" / f"{name}.ipynb", *sources)
    outcomes = run(jobs=2, keep_going=True, parameters={"steps": 3}, root=root, runs=root / "runs")
    return root, {one.notebook: one for one in outcomes}


@pytest.mark.slow
def test_a_good_notebook_leaves_everything(executed):
    root, outcomes = executed
    out = root / "runs/smoke/00_good"
    assert (outcomes["00_good"].status, outcomes["00_good"].met, outcomes["00_good"].expectations) == ("ran", 1, 1)
    assert outcomes["00_good"].metrics == {"a": 3} and outcomes["00_good"].peak_mb > 50
    assert {path.name for path in out.iterdir()} == {"00_good.ipynb", "metrics.json", "run.json", "stamp.json", "run.log"}
    text = (out / "00_good.ipynb").read_text()
    assert sys.executable in text, "the kernel must be this interpreter"
    assert f"{root}/" not in text.replace(sys.executable, ""), "the executed notebook tells where it was made"
    assert "results go to" in (out / "run.log").read_text()
    assert outcomes["05_plain"].status == "ran"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("01_exits", "cell 2: SystemExit"),
        ("02_fails", "cell 3: ZeroDivisionError: division by zero"),
        ("03_caught", "an expectation was not met: a small number"),
        ("04_dies", "cell 2: the kernel died"),
    ],
)
def test_a_notebook_that_did_not_complete_has_failed(executed, name, word):
    root, outcomes = executed
    assert outcomes[name].status == "failed" and word in outcomes[name].reason
    assert (root / f"runs/smoke/{name}/{name}.failed.ipynb").is_file()
    assert not (root / f"runs/smoke/{name}/stamp.json").exists()
    assert not (root / f"runs/smoke/{name}/{name}.ipynb").exists()


@pytest.mark.slow
def test_a_second_run_only_plans_what_failed(executed):
    root, _ = executed
    started = time.monotonic()
    outcomes = run(parameters={"steps": 3}, root=root, runs=root / "runs", dry_run=True)
    assert time.monotonic() - started < 10
    wanted = ["up to date", "would run", "would run", "would run", "would run", "up to date"]
    assert statuses(outcomes) == wanted
    assert outcomes[0].met == 1 and outcomes[0].metrics == {"a": 3}


@pytest.mark.slow
def test_a_failure_stops_the_series_unless_told_otherwise(tmp_path, write_notebook):
    write_notebook(tmp_path / "notebooks/00_bad.ipynb", "1 / 0")
    write_notebook(tmp_path / "notebooks/01_good.ipynb", "1")
    outcomes = run(root=tmp_path)
    assert statuses(outcomes) == ["failed", "not run"] and not (tmp_path / "runs/smoke/01_good").exists()


@pytest.mark.slow
def test_a_cell_that_takes_too_long_fails_by_number(tmp_path, write_notebook):
    write_notebook(tmp_path / "notebooks/00_slow.ipynb", "x = 1", "import time; time.sleep(600)")
    (outcome,) = run(root=tmp_path, timeout_per_cell=3)
    assert outcome.status == "failed" and outcome.reason == "cell 3: took longer than 3 s (--timeout-per-cell)"


@pytest.mark.slow
def test_a_mended_notebook_replaces_its_failed_copy(tmp_path, write_notebook):
    write_notebook(tmp_path / "notebooks/00_a.ipynb", "1 / 0")
    assert statuses(run(root=tmp_path)) == ["failed"]
    write_notebook(tmp_path / "notebooks/00_a.ipynb", "1 / 1")
    assert statuses(run(root=tmp_path)) == ["ran"]
    assert {path.name for path in (tmp_path / "runs/smoke/00_a").iterdir()} == {"00_a.ipynb", "stamp.json", "run.log"}


@pytest.mark.slow
def test_solutions_are_executed_and_must_be_right(tmp_path, write_notebook):
    exercise = lambda source: (source, {"tags": ["exercise"], "exercise": "1"})
    lesson = "from kinelib import course\ncfg = course.start('00_a', profile, seed)"
    check = "course.exercise('1', answer, lambda value: value == 42)"
    notebook = tmp_path / "notebooks/00_a.ipynb"
    solution = tmp_path / "notebooks/solutions/00_a.ipynb"
    write_notebook(notebook, lesson, exercise("answer = None"), check)
    write_notebook(solution, exercise("answer = 41"))
    (wrong,) = run(root=tmp_path, solutions=True)
    assert wrong.status == "failed" and "solution of exercise 1" in wrong.reason
    write_notebook(solution, exercise("answer = 42"))
    assert statuses(run(root=tmp_path, solutions=True)) == ["ran"]
    assert statuses(run(root=tmp_path, solutions=True, dry_run=True)) == ["up to date"]
    assert statuses(run(root=tmp_path, dry_run=True)) == ["would run"]
    write_notebook(notebook, lesson, exercise("answer = None"))
    (unchecked,) = run(root=tmp_path, solutions=True)
    assert "was not checked" in unchecked.reason


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_stamp_and_no_kernel(tmp_path, write_notebook, signum):
    code = "import os, time, pathlib\npathlib.Path('../kernel.pid').write_text(str(os.getpid()))\ntime.sleep(600)"
    write_notebook(tmp_path / "notebooks/00_a.ipynb", code)
    script = f"from pathlib import Path\nfrom kinelib.course.runner import run\nrun(root=Path({str(tmp_path)!r}))"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        kernel = _read_when_there(tmp_path / "kernel.pid", seconds=120)
        process.send_signal(signum)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode != 0 and b"KeyboardInterrupt" in errors
    out = tmp_path / "runs/smoke/00_a"
    assert {path.name for path in out.iterdir()} == {"run.log"}
    assert statuses(run(root=tmp_path, dry_run=True)) == ["would run"]
    deadline = time.monotonic() + 30
    while _alive(kernel) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not _alive(kernel)


def _read_when_there(path: Path, seconds: float) -> int:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if path.is_file() and path.read_text():
            return int(path.read_text())
        time.sleep(0.1)
    raise AssertionError(f"{path.name} did not appear in {seconds} s")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie that nobody has waited for yet is dead as well.
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.is_file() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z")
