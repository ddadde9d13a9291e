"""``show_source``: the library's own code, shown inside the notebook that explains it."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any


def show_source(thing: Callable[..., Any] | type, docstring: bool = False) -> None:
    """Shows the source of a function, method or class, highlighted in Jupyter and as plain text elsewhere.

    Args:
        thing: a function, method or class of the library.
        docstring: whether to show its docstrings as well; the notebook usually says it in its own words.

    Raises:
        TypeError: when Python keeps no source for it, such as an instance or a built-in.
    """
    try:
        lines, first = inspect.getsourcelines(thing)
        path = Path(inspect.getsourcefile(thing) or "")
    except (TypeError, OSError) as error:
        raise TypeError(f"show_source takes a function, method or class written in Python; got {thing!r}.") from error
    source = textwrap.dedent("".join(lines)).rstrip()
    if not docstring:
        source = without_docstrings(source)
    package = Path(__file__).resolve().parents[2]
    where = path.relative_to(package).as_posix() if path.is_relative_to(package) else path.name
    text = f"# {where}, line {first}\n{source}"
    if "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None:
        from IPython.display import Code, display

        display(Code(data=text, language="python"))
    else:
        print(text)


def without_docstrings(source: str) -> str:
    """The same source without the docstrings of its functions and classes; a body that was only a docstring keeps it."""
    drop: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or len(node.body) < 2:
            continue
        first = node.body[0]
        if ast.get_docstring(node, clean=False) is not None:
            drop.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return "\n".join(line for number, line in enumerate(source.splitlines(), 1) if number not in drop)
