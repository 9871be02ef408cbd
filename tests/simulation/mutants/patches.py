"""Mutants: the core with one thing broken on purpose, as a patch for a copy of the package.

A patch begins with comment lines that say in one sentence what is broken, and `expects:` with the invariants that
may notice. Line numbers mean nothing: the text of a hunk (context and removed lines) must be in its file exactly
once, so a patch survives whatever moves it, and fails loudly when the code it breaks has changed.

To add one: break the core, `git diff -U1 eventkit > tests/simulation/mutants/NAME.patch`, undo, write the header.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FOLDER", "ROOT", "Hunk", "Mutant", "PatchError", "copy_package", "find", "mutated", "parsed"]

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[2]
PACKAGE = "eventkit"


class PatchError(Exception):
    """A patch cannot be read, or does not fit the code any more; the message names the patch and the hunk."""


@dataclass(frozen=True, slots=True)
class Hunk:
    """One place to change: `old` becomes `new` in the file at `path`, from the root of the checkout."""

    path: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """One way to break the core. `expects` are the invariants that may notice."""

    name: str
    breaks: str
    expects: tuple[str, ...]
    hunks: tuple[Hunk, ...]


def find(names: list[str] | None = None) -> list[Mutant]:
    """All mutants, or those of these names, by name. Raises PatchError."""
    paths = sorted(FOLDER.glob("*.patch")) if not names else [FOLDER / f"{name}.patch" for name in names]
    missing = [path.stem for path in paths if not path.exists()]
    if missing:
        raise PatchError(f"no mutant is named {', '.join(missing)}")
    return [parsed(path.stem, path.read_text()) for path in paths]


def parsed(name: str, text: str) -> Mutant:
    """The mutant that a patch describes. Raises PatchError."""
    header = [line[1:].strip() for line in text.splitlines() if line.startswith("#")]
    breaks = " ".join(line for line in header if not line.startswith("expects:"))
    expects = tuple(" ".join(line for line in header if line.startswith("expects:")).split()[1:])
    hunks = tuple(_hunks(name, text))
    for what, found in (("a sentence", breaks), ("`expects:`", expects), ("a hunk", hunks)):
        if not found:
            raise PatchError(f"{name}.patch lacks {what}")
    return Mutant(name, breaks, expects, hunks)


def _hunks(name: str, text: str) -> Iterator[Hunk]:
    path = ""
    for part in re.split(r"^(?=\+\+\+ |@@ )", text, flags=re.MULTILINE)[1:]:
        head, *lines = part.splitlines(keepends=True)
        if head.startswith("+++ "):
            path = head.removeprefix("+++ b/").split("\t")[0].strip()
            continue
        lines = [" " + line if line == "\n" else line for line in lines if not line.startswith(("--- ", "diff ", "\\"))]
        odd = [line for line in lines if line[0] not in " -+" and not line.startswith("index ")]
        if not path or odd:
            raise PatchError(f"{name}.patch: {head.strip()} is not a hunk of a file: {''.join(odd[:1]).strip()!r}")
        old = "".join(line[1:] for line in lines if line[0] in " -")
        new = "".join(line[1:] for line in lines if line[0] in " +")
        yield Hunk(path, old, new)


def copy_package(root: Path) -> None:
    """Put a copy of the package as it is into the folder `root`."""
    shutil.copytree(ROOT / PACKAGE, root / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))


def mutated(mutant: Mutant, root: Path) -> dict[Path, str]:
    """What the files below `root` that the mutant changes would be. Raises PatchError."""
    texts: dict[Path, str] = {}
    for number, hunk in enumerate(mutant.hunks, 1):
        path = root / hunk.path
        text = texts.get(path) or (path.read_text() if path.exists() else "")
        found = text.count(hunk.old)
        if found != 1:
            raise PatchError(
                f"{mutant.name}.patch does not apply: hunk {number} occurs {found} times in {hunk.path}; "
                f"make it anew for the code as it is now:\n{hunk.old}"
            )
        texts[path] = text.replace(hunk.old, hunk.new)
    return texts
