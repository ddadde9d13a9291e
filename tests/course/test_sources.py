"""Imports are followed by reading: through packages, functions, relative and lazy imports, and no further than kinelib."""

from __future__ import annotations

import pytest

from kinelib.course.sources import hash_path, library_files, library_hashes


@pytest.fixture
def library(tmp_path):
    files = {
        "kinelib/__init__.py": "",
        "kinelib/notation.py": "import numpy",
        "kinelib/a/__init__.py": "from kinelib.a.one import f",
        "kinelib/a/one.py": "def f():\n    from kinelib.notation import g",
        "kinelib/a/two.py": "from . import one\nfrom ..b import lazy",
        "kinelib/b/__init__.py": "_LAZY = {'thing': '.lazy'}",
        "kinelib/b/lazy.py": "import kinelib.b.deep",
        "kinelib/b/deep.py": "from .lazy import x  # a circle",
        "kinelib/b/canvas.js": "// beside b",
        "kinelib/c.py": "MODULE = 'kinelib.a.two'",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def names(code, root):
    return {path.relative_to(root / "kinelib").as_posix() for path in library_files(code, root)}


PACKAGE_A = {"__init__.py", "a/__init__.py", "a/one.py", "notation.py"}
PACKAGE_B = {"__init__.py", "b/__init__.py", "b/lazy.py", "b/deep.py", "b/canvas.js"}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import torch, numpy.linalg", set()),
        ("import kinelib", {"__init__.py"}),
        ("import kinelib.notation as n", {"__init__.py", "notation.py"}),
        ("from kinelib import notation", {"__init__.py", "notation.py"}),
        ("from kinelib.a import f", PACKAGE_A),
        ("def g():\n    from kinelib import a", PACKAGE_A),
        ("from kinelib import b", PACKAGE_B),
        ("from kinelib.a import two", PACKAGE_A | PACKAGE_B | {"a/two.py"}),
        ("import kinelib.c", PACKAGE_A | PACKAGE_B | {"a/two.py", "c.py"}),
        ("from kinelib import b\nawait b.run()", PACKAGE_B),
    ],
)
def test_what_code_depends_on(library, code, expected):
    assert names(code, library) == expected


def test_hashes_change_with_contents_only(library):
    before = library_hashes("from kinelib import b", library)
    assert library_hashes("from kinelib import b", library) == before
    (library / "kinelib/b/deep.py").write_text("x = 1")
    after = library_hashes("from kinelib import b", library)
    assert {name for name in before if before[name] != after.get(name)} == {"kinelib/b/deep.py"}


def test_an_import_added_deep_inside_is_followed(library):
    assert "notation.py" not in names("from kinelib import b", library)
    (library / "kinelib/b/deep.py").write_text("import kinelib.notation  # new")
    assert "notation.py" in names("from kinelib import b", library)


def test_hash_path_of_folders(tmp_path):
    assert hash_path(tmp_path / "none") == "missing"
    (tmp_path / "d").mkdir()
    (tmp_path / "d/x").write_text("1")
    first = hash_path(tmp_path / "d")
    (tmp_path / "d/x").rename(tmp_path / "d/y")
    assert hash_path(tmp_path / "d") not in (first, "missing")


def test_broken_code_is_a_syntax_error(library):
    with pytest.raises(SyntaxError):
        library_files("def (", library)
