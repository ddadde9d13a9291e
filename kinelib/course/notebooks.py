"""What the runner must know about a notebook before it executes it, read strictly and without Jupyter.

Papermill is permissive: it injects unknown parameters, does without a parameters cell and keeps derived values stale.
Here each of these is an error before anything runs.
"""

from __future__ import annotations

import ast
import copy
import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinelib.course.lesson import SLUG


class NotebookError(ValueError):
    """A notebook, or what was asked of it, breaks a rule of the course; the message says which and what to do."""


@dataclass(frozen=True)
class Notebook:
    """A notebook's JSON and what was found in it."""

    path: Path
    content: dict[str, Any]  # the whole file
    parameters: dict[str, Any]  # the defaults in its parameters cell
    needs: tuple[str, ...] | None  # inputs it declares in metadata.kinelib.needs; None when it declares none

    @property
    def name(self) -> str:
        """NN_slug."""
        return self.path.stem

    @property
    def code_cells(self) -> list[dict[str, Any]]:
        """Its code cells in order."""
        return [cell for cell in self.content["cells"] if cell["cell_type"] == "code"]

    @property
    def code(self) -> str:
        """Its code as one Python source, without the lines that only IPython understands."""
        return "\n\n".join(python_of(cell) for cell in self.code_cells)

    @property
    def exercises(self) -> dict[str, dict[str, Any]]:
        """Its exercise cells by name, in order.

        Raises:
            NotebookError: when a cell tagged ``exercise`` has no name in its metadata or shares it.
        """
        found: dict[str, dict[str, Any]] = {}
        for cell in self.code_cells:
            if "exercise" not in tags(cell):
                continue
            name = cell["metadata"].get("exercise")
            if not isinstance(name, str) or not name or name in found:
                raise NotebookError(
                    f'{self.path.name}: every cell tagged "exercise" needs its own name in its metadata, '
                    f'{{"tags": ["exercise"], "exercise": "1"}}; got {name!r}.'
                )
            found[name] = cell
        return found


def read_notebook(path: Path) -> Notebook:
    """Reads a notebook and checks that the runner can execute it honestly.

    Args:
        path: ``NN_slug.ipynb``.

    Raises:
        NotebookError: when it is no notebook, a cell is not Python, there is not exactly one cell tagged ``parameters``, or
            that cell holds anything but ``name = literal`` lines.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        cells = content["cells"]
        for cell in cells:
            cell["source"] = "".join(cell["source"])
            cell.setdefault("metadata", {})
    except (ValueError, KeyError, TypeError) as error:
        raise NotebookError(f"{path} is not a notebook that can be read ({error}).") from error
    tagged = [cell for cell in cells if cell["cell_type"] == "code" and "parameters" in tags(cell)]
    if len(tagged) != 1:
        raise NotebookError(
            f"{path.name} has {len(tagged)} cells tagged 'parameters'; it needs exactly one. "
            "In JupyterLab: select the cell, open the property inspector (gear), add the tag."
        )
    for number, cell in enumerate(cells, 1):
        if cell["cell_type"] == "code":
            try:
                _parse(python_of(cell))
            except SyntaxError as error:
                raise NotebookError(f"{path.name}, cell {number}, line {error.lineno}: {error.msg}.") from error
    needs = content.get("metadata", {}).get("kinelib", {}).get("needs")
    parameters = literal_parameters(python_of(tagged[0]), path.name)
    if "profile" not in parameters:
        raise NotebookError(f'{path.name} has no parameter "profile"; add profile = "smoke" to its parameters cell.')
    return Notebook(path, content, parameters, None if needs is None else tuple(needs))


def literal_parameters(source: str, where: str) -> dict[str, Any]:
    """The names and values of a parameters cell that holds nothing but ``name = literal`` or ``name: type = literal``.

    Raises:
        NotebookError: for anything else. Papermill puts the chosen values in a cell *below*, so a value derived here would
            still be derived from the default.
    """
    values: dict[str, Any] = {}
    for node in _parse(source).body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            continue  # a docstring
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or len(targets) != 1 or not isinstance(targets[0], ast.Name):
            raise NotebookError(
                f"{where}: the parameters cell may hold only 'name = literal' lines; got {ast.unparse(node)!r}."
            )
        name = targets[0].id
        if name in values:
            raise NotebookError(f"{where}: the parameters cell sets {name} twice.")
        try:
            values[name] = ast.literal_eval(node.value)  # type: ignore[arg-type]
        except (ValueError, TypeError):
            raise NotebookError(
                f"{where}: the parameter {name} is derived ({ast.unparse(node)!r}) and would not follow an override. "
                "Give a literal, and derive the value in the next cell."
            ) from None
    return values


def check_overrides(notebook: Notebook, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Checks values for a notebook's parameters and gives them the type of the default.

    Args:
        notebook: whose parameters they are.
        overrides: values by name.

    Returns:
        the values; an int becomes a float where the default is one.

    Raises:
        NotebookError: for a name the parameters cell does not have (with the nearest one), or a value of another type.
    """
    checked = {}
    for name, value in overrides.items():
        if name not in notebook.parameters:
            near = difflib.get_close_matches(name, notebook.parameters, n=1)
            guess = f"Did you mean {near[0]!r}?" if near else f"It has: {', '.join(notebook.parameters)}."
            raise NotebookError(f"{notebook.path.name} has no parameter {name!r}. {guess}")
        default = notebook.parameters[name]
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if default is not None and value is not None and type(value) is not type(default):
            raise NotebookError(
                f"{notebook.path.name}: the parameter {name} is a {type(default).__name__} (default {default!r}); "
                f"got {value!r}, a {type(value).__name__}."
            )
        checked[name] = value
    return checked


def find_notebooks(folder: Path, names: Iterable[str] = ()) -> list[Path]:
    """The notebooks of a folder in order, or those that names pick out.

    Args:
        folder: where ``NN_slug.ipynb`` files lie.
        names: numbers (``"03"``, ``"3"``) or full names, with or without ``.ipynb``; none means all.

    Raises:
        NotebookError: when there is no notebook, a file is not called NN_slug, or a name picks out none or several.
    """
    paths = sorted(path for path in folder.glob("*.ipynb"))
    if not paths:
        raise NotebookError(f"There are no notebooks in {folder}.")
    for path in paths:
        if not SLUG.fullmatch(path.stem):
            raise NotebookError(f"{path.name} is not called NN_slug.ipynb (two digits, lower case, underscores). Rename it.")
    chosen: set[Path] = set()
    for name in names:
        stem = Path(name).name.removesuffix(".ipynb")
        found = [path for path in paths if path.stem == stem or (stem.isdigit() and path.stem[:2] == stem.zfill(2))]
        if len(found) != 1:
            have = ", ".join(path.stem for path in paths)
            raise NotebookError(f"{name!r} names {len(found) or 'no'} notebooks, not one; there are: {have}.")
        chosen.add(found[0])
    return sorted(chosen) or paths


def with_solutions(notebook: Notebook, solutions: Notebook) -> dict[str, Any]:
    """A notebook's JSON with each exercise cell replaced by its solution.

    Args:
        notebook: the one that readers get.
        solutions: a notebook whose cells tagged ``exercise`` carry the same names.

    Raises:
        NotebookError: when an exercise has no solution or a solution no exercise.
    """
    asked, solved = notebook.exercises, solutions.exercises
    if asked.keys() != solved.keys():
        raise NotebookError(
            f"{notebook.path.name} asks exercises {', '.join(asked) or 'none'}; "
            f"its solutions notebook answers {', '.join(solved) or 'none'}."
        )
    content = copy.deepcopy(notebook.content)
    for cell in content["cells"]:
        if "exercise" in tags(cell):
            cell["source"] = solved[cell["metadata"]["exercise"]]["source"]
    return content


def tags(cell: Mapping[str, Any]) -> list[str]:
    """The tags of a cell."""
    return cell["metadata"].get("tags", [])


def python_of(cell: Mapping[str, Any]) -> str:
    """A code cell's source with IPython's own lines (magics, shell commands) turned into ``pass``."""
    source = cell["source"]
    if source.lstrip().startswith("%%"):
        return ""
    lines = []
    for line in source.splitlines():
        bare = line.lstrip()
        lines.append(line[: len(line) - len(bare)] + "pass" if bare.startswith(("%", "!")) else line)
    return "\n".join(lines)


def _parse(source: str) -> ast.Module:
    return compile(source, "<cell>", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
