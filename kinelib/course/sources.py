"""Which files of kinelib a piece of code depends on, found by reading imports, and what they hash to.

Nothing is imported: the code is parsed, every ``import`` in it is followed (those inside functions too), and so on through
the library. An ``__init__.py`` that names its submodules in strings, as lazy ones do, is followed as well.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from kinelib.course.places import repository

PACKAGE = "kinelib"


def hash_text(text: str) -> str:
    """The first 16 hexadecimal digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hash_path(path: Path) -> str:
    """The hash of a file, or of every file under a folder with its relative name; "missing" when there is neither."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    if not path.is_dir():
        return "missing"
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    return hash_text("\n".join(f"{file.relative_to(path).as_posix()} {hash_path(file)}" for file in files))


def hash_large(folder: Path) -> str:
    """A hash of names, sizes and times of change under a folder: for data too large to read each time."""
    if not folder.exists():
        return "missing"
    files = [folder] if folder.is_file() else sorted(file for file in folder.rglob("*") if file.is_file())
    return hash_text("\n".join(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files))


def library_files(code: str, root: Path | None = None) -> list[Path]:
    """Every file of kinelib that some code imports, directly or through the library.

    Args:
        code: Python source; lines that only IPython understands must have been taken out.
        root: the folder that holds the package; the repository by default.

    Returns:
        sorted paths: modules, the packages around them, and the files beside those that are no Python (such as JavaScript).

    Raises:
        SyntaxError: when the code is not Python.
    """
    root = root or repository()
    found: set[Path] = set()
    tree = compile(code, "<code>", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    waiting = list(_imported(tree, None, root))
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        waiting += _imports_of(path, root, path.stat().st_mtime_ns)
    assets = {
        file
        for folder in {path.parent for path in found}
        for file in folder.iterdir()
        if file.is_file() and file.suffix in {".js", ".css", ".html", ".json", ".txt"}
    }
    return sorted(found | assets)


def library_hashes(code: str, root: Path | None = None) -> dict[str, str]:
    """The hash of each file that :func:`library_files` finds, by its path relative to the root."""
    root = root or repository()
    return {path.relative_to(root).as_posix(): hash_path(path) for path in library_files(code, root)}


@cache
def _imports_of(path: Path, root: Path, changed: int) -> tuple[Path, ...]:
    """The library files that one library file imports; ``changed`` is in the key so that an edited file is read again."""
    return tuple(_imported(ast.parse(path.read_text(encoding="utf-8")), path, root))


def _imported(tree: ast.AST, path: Path | None, root: Path) -> Iterable[Path]:
    package = [] if path is None else list(path.relative_to(root).parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _module_files(alias.name.split("."), root)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            parts = base + (node.module.split(".") if node.module else [])
            yield from _module_files(parts, root)
            for alias in node.names:
                yield from _module_files([*parts, alias.name], root)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 100:
            if node.value.startswith(f"{PACKAGE}."):
                yield from _module_files(node.value.split("."), root)
            elif path is not None and path.name == "__init__.py" and node.value.strip(".").isidentifier():
                yield from _module_files([*package, node.value.strip(".")], root)


def _module_files(parts: list[str], root: Path) -> Iterable[Path]:
    """The file of a module and the ``__init__.py`` of every package around it; nothing for names outside the library."""
    if not parts or parts[0] != PACKAGE or not all(part.isidentifier() for part in parts):
        return
    for depth in range(1, len(parts) + 1):
        folder = root.joinpath(*parts[:depth])
        if (folder / "__init__.py").is_file():
            yield folder / "__init__.py"
        elif folder.with_suffix(".py").is_file():
            yield folder.with_suffix(".py")
