"""Our ES modules as one: widgets load a single module, and a page opened from a file may not fetch a second one.

No tool does this, for none is needed: our modules import each other by relative path, export functions, classes and
constants by name, and use each top-level name once. What does not fit that is refused.
"""

from __future__ import annotations

import re
from pathlib import Path

STATIC = Path(__file__).parent / "static"
_IMPORT = re.compile(r"^import\s*\{[^}]*\}\s*from\s*\"\./([\w.]+)\";\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?:default .*\n)?", re.MULTILINE)
_TOP_LEVEL = re.compile(r"^(?:export )?(?:async )?(?:const|let|var|function|class) ([\w$]+)", re.MULTILINE)


def bundle_modules(entry: str, folder: Path = STATIC) -> str:
    """The entry module with everything it imports before it, as the source of one module.

    Args:
        entry: a file name in `folder`; its own exports stay exports.
        folder: where the modules lie.

    Raises:
        FileNotFoundError: when an imported module is not there.
        ValueError: on an import of another form, or a top-level name that two modules use.
    """
    order: list[str] = []
    sources: dict[str, str] = {}

    def visit(name: str) -> None:
        if name in sources:
            return
        sources[name] = source = (folder / name).read_text(encoding="utf-8")
        for needed in _IMPORT.findall(source):
            visit(needed)
        order.append(name)

    visit(entry)
    owners: dict[str, str] = {}
    parts = []
    for name in order:
        for defined in _TOP_LEVEL.findall(sources[name]):
            if defined in owners:
                raise ValueError(f"{name} and {owners[defined]} both define {defined}; rename one of them.")
            owners[defined] = name
        body = _IMPORT.sub("", sources[name])
        if re.search(r"^import\b|\bimport\(", body, re.MULTILINE):
            raise ValueError(f'{name} has an import that is not `import {{ ... }} from "./module.js";`; write it so.')
        parts.append(f"// ---- {name}\n{body if name == entry else _EXPORT.sub('', body)}")
    return "\n".join(parts)
