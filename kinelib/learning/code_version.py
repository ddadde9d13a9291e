"""What code does, as a short hash: a cache that is named after it never outlives the code that made it."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path


def meaning(code: str) -> str:
    """Python code without its comments, layout, docstrings and other bare constants, which do nothing."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(getattr(node, "body", None), list):
            node.body = [n for n in node.body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
    return ast.dump(tree)


def code_hash(paths: Iterable[Path]) -> str:
    """Ten hexadecimal digits of what the files at some paths do, in this order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(meaning(path.read_text(encoding="utf-8")).encode())
    return digest.hexdigest()[:10]
