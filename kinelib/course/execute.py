"""Executes one notebook with papermill in a process of its own, and tells the runner how it went.

    python -m kinelib.course.execute JOB.json

The job names the notebook, where its executed copy goes, the parameters and the timeout; the answer is written to the job's
``result`` file. A process a notebook gives each an honest peak of memory and a kernel that dies with it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from kinelib.course.places import write_json


def execute(job: dict[str, Any]) -> dict[str, Any]:
    """Runs a notebook from top to bottom.

    Args:
        job: ``input`` and ``output`` paths, ``folder`` to work in, ``parameters``, ``timeout`` seconds a cell.

    Returns:
        ``error`` (None when every cell completed) and ``peak_mb`` of the kernel.
    """
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    error = None
    with tempfile.TemporaryDirectory(prefix="kinelib-kernel-") as folder:
        _prepare_kernel(Path(folder))
        try:
            executed = papermill.execute_notebook(
                job["input"],
                job["output"],
                parameters=job["parameters"],
                kernel_name="python3",
                cwd=job["folder"],
                progress_bar=False,
                execution_timeout=job["timeout"],
                stdout_file=sys.stdout,
                stderr_file=sys.stderr,
            )
            error = incomplete(executed)
        except PapermillExecutionError as failure:
            error = f"{_stopped_at(job['output'])}: {failure.ename}: {failure.evalue}"
        except CellTimeoutError:
            error = f"{_stopped_at(job['output'])}: took longer than {job['timeout']} s (--timeout-per-cell)"
        except DeadKernelError:
            error = f"{_stopped_at(job['output'])}: the kernel died (often: out of memory)"
    return {"error": error, "peak_mb": _peak_of_children()}


def incomplete(executed: Any) -> str | None:
    """Which cell of an executed notebook did not complete, or None.

    Papermill treats ``sys.exit(0)`` as success and leaves the rest of the notebook unexecuted.
    """
    for number, cell in enumerate(own_cells(executed.cells), 1):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        for output in cell.outputs:
            if output.output_type == "error":
                return f"cell {number}: {output.ename}: the notebook stopped here; the cells below were not executed"
        if cell.metadata.papermill.get("status") != "completed" or cell.execution_count is None:
            return f"cell {number} was not executed"
    return None


def own_cells(cells: list[Any]) -> list[Any]:
    """The notebook's cells without those papermill put in (parameters, error banners), so that cell numbers agree."""
    added = {"injected-parameters", "papermill-error-cell-tag"}
    return [cell for cell in cells if not added & set(cell["metadata"].get("tags", []))]


def _prepare_kernel(folder: Path) -> None:
    """Makes this interpreter, without the user's IPython start-up files, the kernel that "python3" means."""
    kernel = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"],
        "display_name": "Python 3",
        "language": "python",
    }
    write_json(folder / "kernels" / "python3" / "kernel.json", kernel)
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("JUPYTER_PATH")]))
    os.environ["IPYTHONDIR"] = str(folder / "ipython")
    os.environ["PYTHONHASHSEED"] = "0"
    os.environ.pop("MPLBACKEND", None)  # so that the kernel's own choice, figures inside the notebook, holds


def _stopped_at(output: str) -> str:
    """Names the last cell that was begun, from the copy that papermill saves as it goes."""
    cells = own_cells(json.loads(Path(output).read_text(encoding="utf-8"))["cells"])
    begun = [number for number, cell in enumerate(cells, 1) if cell["metadata"]["papermill"]["start_time"]]
    return f"cell {begun[-1]}" if begun else "before the first cell"


def _peak_of_children() -> float | None:
    """The largest resident size of a finished child, in MB; None on Windows, which does not keep it."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))


def main(arguments: list[str]) -> int:
    """Executes the job in a file and writes its result; the exit status only says whether there is one."""
    job = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    write_json(Path(job["result"]), execute(job))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
