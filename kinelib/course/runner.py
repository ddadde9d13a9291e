"""The strict, incremental notebook runner behind ``python -m kinelib run``.

Every selected notebook is checked before the first one runs (see ``notebooks``); one whose stamp is unchanged is up to date
(see ``stamps``); the others run one process each (see ``execute``). Results land in ``runs/<profile>/NN_slug/``:

    NN_slug.ipynb   the executed notebook (NN_slug.failed.ipynb when it failed)
    metrics.json    what it recorded          run.json    its expectations and exercises
    stamp.json      what it depended on       run.log     what it printed
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kinelib.course.notebooks import (
    Notebook,
    NotebookError,
    check_overrides,
    find_notebooks,
    read_notebook,
    with_solutions,
)
from kinelib.course.places import read_json, repository, write_json
from kinelib.course.stamps import changed, fingerprint


@dataclass
class Outcome:
    """What became of one notebook."""

    notebook: str  # NN_slug
    status: str  # "ran", "up to date", "failed", "would run" or "not run"
    reason: str = ""  # why it ran, would run or failed
    seconds: float | None = None  # of its execution, now or when it last ran
    peak_mb: float | None = None  # largest memory of its kernel
    met: int = 0  # expectations met
    expectations: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)  # what it recorded


@dataclass
class _Task:
    """A notebook to execute and where everything of it goes."""

    notebook: Notebook  # with its exercises solved when the solutions are executed
    parameters: dict[str, Any]
    stamp: dict[str, str]
    out: Path
    reason: str
    source: Path  # the file to execute: the notebook itself, or its copy with solutions
    process: subprocess.Popen[bytes] | None = None
    begun: float = 0.0  # time.monotonic() when its process started

    @property
    def solving(self) -> bool:
        return self.source != self.notebook.path

    @property
    def executed(self) -> Path:
        return self.out / self.notebook.path.name

    @property
    def failed(self) -> Path:
        return self.out / f"{self.notebook.name}.failed.ipynb"


def run(
    names: Sequence[str] = (),
    profile: str = "smoke",
    jobs: int = 1,
    keep_going: bool = False,
    timeout_per_cell: int = 600,
    dry_run: bool = False,
    seed: int | None = None,
    parameters: Mapping[str, Any] | None = None,
    *,
    solutions: bool = False,
    force: bool = False,
    root: Path | None = None,
    runs: Path | None = None,
) -> list[Outcome]:
    """Executes notebooks that are not up to date.

    Args:
        names: numbers or names of notebooks; none means all.
        profile: ``"smoke"``, ``"lab"`` or ``"paper"``; the notebooks' parameter of that name.
        jobs: how many run at once.
        keep_going: run the remaining notebooks after one failed.
        timeout_per_cell: seconds.
        dry_run: only say what would run, and why.
        seed: the notebooks' parameter of that name; None leaves their default.
        parameters: other parameters; each must exist in every selected notebook.
        solutions: execute each notebook with its exercises solved, from ``notebooks/solutions/``.
        force: run what is up to date as well.
        root: the repository.
        runs: where results go, ``runs/`` in the repository by default.

    Returns:
        one outcome a notebook, in order.

    Raises:
        NotebookError: when a notebook or parameter breaks a rule; nothing has run then.
        KeyboardInterrupt: when interrupted; notebooks under way are stopped and leave no stamp.
    """
    root = root or repository()
    runs = runs or Path(os.environ.get("KINELIB_RUNS") or root / "runs")
    _check_arguments(profile, jobs, timeout_per_cell)
    chosen = {"profile": profile, **({} if seed is None else {"seed": seed}), **(parameters or {})}
    tasks = [_plan(path, chosen, root, runs, solutions) for path in _selected(root, names, solutions)]
    outcomes = {task.notebook.name: _standing(task, force) for task in tasks}
    waiting = [task for task in tasks if outcomes[task.notebook.name].status != "up to date"]
    if not dry_run:
        environment = {
            **os.environ,
            "KINELIB_RUNS": str(runs.resolve()),
            "KINELIB_HEADLESS": "solutions" if solutions else "1",
        }
        if jobs > 1:
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
        for task in waiting:
            outcomes[task.notebook.name].status = "not run"
        _execute_all(waiting, outcomes, jobs, keep_going, timeout_per_cell, root, environment)
    return [outcomes[task.notebook.name] for task in tasks]


def succeeded(outcomes: Sequence[Outcome]) -> bool:
    """True when nothing failed and nothing was left out after a failure."""
    return all(outcome.status not in ("failed", "not run") for outcome in outcomes)


def table(outcomes: Sequence[Outcome], profile: str) -> str:
    """The closing table: notebook, status, seconds, peak memory, expectations met, and below it what was recorded."""
    rows = [("notebook", "status", "seconds", "peak MB", "expectations")]
    for one in outcomes:
        seconds = "-" if one.seconds is None else f"{one.seconds:.1f}"
        peak = "-" if one.peak_mb is None else f"{one.peak_mb:.0f}"
        rows.append((one.notebook, one.status, seconds, peak, f"{one.met}/{one.expectations}"))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    recorded = [(one.notebook[:2], name, value) for one in outcomes for name, value in one.metrics.items()]
    if recorded:
        width = max(len(name) for _, name, _ in recorded)
        small = "" if profile == "paper" else " (small models: not to be compared with a paper's numbers)"
        lines += ["", f"recorded under profile {profile}{small}"]
        lines += [f"  {number}  {name.ljust(width)}  {_shown(value)}" for number, name, value in recorded]
    return "\n".join(lines)


def _check_arguments(profile: str, jobs: int, timeout_per_cell: int) -> None:
    if profile not in ("smoke", "lab", "paper"):
        raise NotebookError(f"There is no profile {profile!r}; choose smoke, lab or paper.")
    if jobs < 1 or timeout_per_cell < 1:
        raise NotebookError(f"--jobs and --timeout-per-cell are at least 1; got {jobs} and {timeout_per_cell}.")


def _selected(root: Path, names: Sequence[str], solutions: bool) -> list[Path]:
    paths = find_notebooks(root / "notebooks", names)
    if not solutions:
        return paths
    solved = [path for path in paths if (path.parent / "solutions" / path.name).is_file()]
    if names and len(solved) < len(paths):
        missing = ", ".join(path.stem for path in paths if path not in solved)
        raise NotebookError(f"There are no solutions for {missing} in notebooks/solutions/.")
    return solved


def _plan(path: Path, chosen: dict[str, Any], root: Path, runs: Path, solutions: bool) -> _Task:
    notebook = read_notebook(path)
    values = check_overrides(notebook, chosen)
    out = runs / chosen["profile"] / ("solutions" if solutions else "") / notebook.name
    source = path
    if solutions:
        answers = read_notebook(path.parent / "solutions" / path.name)
        source = out / f"{notebook.name}.solved.ipynb"
        notebook = replace(notebook, content=with_solutions(notebook, answers))
    return _Task(notebook, values, fingerprint(notebook, values, root), out, "", source)


def _standing(task: _Task, force: bool) -> Outcome:
    """Whether a notebook is up to date, and if not, why."""
    name = task.notebook.name
    stamp = read_json(task.out / "stamp.json")
    different = changed(stamp.get("parts", {}), task.stamp)
    gone = [file for file in stamp.get("made", []) if not (task.out / file).is_file()]
    if not stamp:
        task.reason = "it has not completed before"
    elif different:
        task.reason = (
            ", ".join(different[:3]) + (f" and {len(different) - 3} more" if len(different) > 3 else "") + " changed"
        )
    elif gone:
        task.reason = f"{gone[0]} is gone"
    elif force:
        task.reason = "forced"
    else:
        return _outcome(task, "up to date", "", stamp["seconds"], stamp["peak_mb"])
    return Outcome(name, "would run", task.reason)


def _execute_all(
    tasks: list[_Task],
    outcomes: dict[str, Outcome],
    jobs: int,
    keep_going: bool,
    timeout: int,
    root: Path,
    environment: dict[str, str],
) -> None:
    """Runs tasks, at most ``jobs`` at once, and puts what became of each among the outcomes."""
    waiting, running, stopped = list(tasks), [], False
    with _terminated_like_interrupted():
        try:
            while waiting or running:
                while waiting and len(running) < jobs and not stopped:
                    task = waiting.pop(0)
                    print(f"{task.notebook.name}: running, because {task.reason}", flush=True)
                    _begin(task, timeout, root, environment)
                    running.append(task)
                if not running:
                    break
                done = [task for task in running if task.process is not None and task.process.poll() is not None]
                for task in done:
                    running.remove(task)
                    outcome = _conclude(task)
                    said = f"failed: {outcome.reason}" if outcome.status == "failed" else f"done in {outcome.seconds} s"
                    print(f"{task.notebook.name}: {said}", flush=True)
                    stopped = stopped or (outcome.status == "failed" and not keep_going)
                    outcomes[task.notebook.name] = outcome
                if not done:
                    time.sleep(0.05)
        finally:
            _stop(running)


def _begin(task: _Task, timeout: int, root: Path, environment: dict[str, str]) -> None:
    """Clears what an earlier run left, its stamp first, and starts the process."""
    task.out.mkdir(parents=True, exist_ok=True)
    (task.out / "stamp.json").unlink(missing_ok=True)
    for stale in ("metrics.json", "run.json", "figures.json", "result.json"):
        (task.out / stale).unlink(missing_ok=True)
    for picture in task.out.glob(f"{task.notebook.name}-*.png"):
        picture.unlink()
    if task.solving:
        write_json(task.source, task.notebook.content)
    job = {
        # Relative, so that the executed notebook does not tell where on this machine it was made.
        "input": os.path.relpath(task.source, root),
        "output": os.path.relpath(task.out / f"{task.notebook.name}.running.ipynb", root),
        "folder": "notebooks",
        "parameters": task.parameters,
        "timeout": timeout,
        "result": str(task.out / "result.json"),
    }
    write_json(task.out / "job.json", job)
    task.begun = time.monotonic()
    with open(task.out / "run.log", "wb") as log:
        command = [sys.executable, "-m", "kinelib.course.execute", str(task.out / "job.json")]
        task.process = subprocess.Popen(
            command,
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the runner alone, which then stops its processes in order
        )


def _conclude(task: _Task) -> Outcome:
    """Reads the result, files the executed notebook under the right name, and stamps a success."""
    result = read_json(task.out / "result.json")
    error = result.get("error") if result else f"the process ended without a result; see {task.out / 'run.log'}"
    error = error or _broken_promise(task)
    running = task.out / f"{task.notebook.name}.running.ipynb"
    if running.is_file():
        os.replace(running, task.failed if error else task.executed)
    (task.out / "job.json").unlink(missing_ok=True)
    (task.out / "result.json").unlink(missing_ok=True)
    seconds, peak = round(time.monotonic() - task.begun, 1), result.get("peak_mb")
    if error:
        return _outcome(task, "failed", error, seconds, peak)
    task.failed.unlink(missing_ok=True)
    made = [task.executed.name, *(file for file in ("metrics.json", "run.json") if (task.out / file).is_file())]
    stamp = {"parts": task.stamp, "made": made, "seconds": seconds, "peak_mb": peak}
    write_json(task.out / "stamp.json", stamp)
    return _outcome(task, "ran", task.reason, seconds, peak)


def _broken_promise(task: _Task) -> str | None:
    """What a notebook whose cells all completed still did wrong, or None."""
    state = read_json(task.out / "run.json")
    if state and os.path.realpath(state["python"]) != os.path.realpath(sys.executable):
        return f"it ran under {state['python']}, not under this interpreter"
    missed = [one["why"] for one in state.get("expectations", []) if not one["met"]]
    if missed:  # a notebook that caught the error has still not kept its promise
        return f"an expectation was not met: {missed[0]}"
    if task.solving:
        unsolved = [name for name in task.notebook.exercises if state.get("exercises", {}).get(name) != "solved"]
        if unsolved:
            return f"the solution of exercise {unsolved[0]} was not checked by course.exercise(...)"
    return None


def _outcome(task: _Task, status: str, reason: str, seconds: float | None, peak: float | None) -> Outcome:
    expectations = read_json(task.out / "run.json").get("expectations", [])
    met = sum(one["met"] for one in expectations)
    metrics = read_json(task.out / "metrics.json").get("metrics", {})
    return Outcome(task.notebook.name, status, reason, seconds, peak, met, len(expectations), metrics)


def _stop(running: list[_Task]) -> None:
    """Ends processes under way (their kernels end with them) and removes their half-executed notebooks."""
    for task in running:
        if task.process is not None and task.process.poll() is None:
            task.process.terminate()
    for task in running:
        if task.process is None:
            continue
        try:
            task.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            task.process.kill()
            task.process.wait()
        for left in ("job.json", "result.json", f"{task.notebook.name}.running.ipynb"):
            (task.out / left).unlink(missing_ok=True)


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Makes SIGTERM raise KeyboardInterrupt, so that ``kill`` cleans up as Ctrl-C does; only the main thread may."""

    def interrupt(signum: int, frame: Any) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
