"""
List circles of imports between the Python files of the repository: circles.py [FOLDER ...]; exit 1 if there are any.

Every import statement counts, wherever it stands: under TYPE_CHECKING, inside a function, in a test. Each circle is
printed as a path, with the line of each import:

    a.py:3 -> b.py:12 -> a.py

For each import that is part of any circle, the shortest circle through it is printed once. FOLDERs limit the search to
files in them.
"""

from __future__ import annotations

import ast
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Not part of the repository: environments, caches, builds.
IGNORED = {"build", "dist", "__pycache__"}

# File -> the files that it imports, each with the line of the first such import.
Graph = dict[Path, dict[Path, int]]


def python_files(root: Path) -> list[Path]:
    """Return the Python files below *root*, relative to it. Hidden folders other than .ci are left out."""
    return sorted(
        path
        for path in (found.relative_to(root) for found in root.rglob("*.py"))
        if not any(part in IGNORED or (part.startswith(".") and part != ".ci") for part in path.parts)
    )


def modules(files: list[Path], package: str) -> dict[tuple[str, ...], Path]:
    """
    Return dotted name, as a tuple -> file.

    A file `a/b.py` is known as `a.b`, and as `PACKAGE.a.b`: the folders of the repository may be installed inside a
    package. A file in `.ci` is a script, and is imported by its bare name.
    """
    found = {}
    for path in files:
        parts = path.with_suffix("").parts
        name = parts[:-1] if parts[-1] == "__init__" else parts
        name = name[1:] if name[:1] == (".ci",) else name
        found[name] = path
        found.setdefault((package, *name), path)
    return found


def imported(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str | None, int]]:
    """Yield each import of a file in *package*: the module, the name that is taken from it or None, and the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield tuple(alias.name.split(".")), None, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            for alias in node.names:
                yield module, alias.name, node.lineno


def graph(root: Path, package: str) -> Graph:
    """Return which file of *root* imports which."""
    files = python_files(root)
    known = modules(files, package)
    edges: Graph = {path: {} for path in files}
    for path in files:
        tree = ast.parse((root / path).read_bytes(), str(path))
        for module, name, line in imported(tree, path.parts[:-1]):
            # `from a import b`: the file a/b.py if there is one, else the file of a.
            target = known.get((*module, name)) if name else None
            target = target or known.get(module)
            if target and target != path:
                edges[path][target] = min(line, edges[path].get(target, line))
    return edges


def shortest_way(edges: Graph, start: Path, end: Path) -> list[Path] | None:
    """Return the shortest chain of imports from *start* to *end*, both included."""
    before: dict[Path, Path | None] = {start: None}
    waiting = deque([start])
    while waiting:
        path = waiting.popleft()
        if path == end:
            way: list[Path] = []
            step: Path | None = path
            while step is not None:
                way.append(step)
                step = before[step]
            return way[::-1]
        for target in sorted(edges[path]):
            if target not in before:
                before[target] = path
                waiting.append(target)
    return None


def without_ends(edges: Graph) -> Graph:
    """Drop every file that is in no circle because it imports none of the others, or none of the others imports it."""
    while True:
        targets = {to for path in edges for to in edges[path]}
        kept = {path for path in edges if edges[path] and path in targets}
        if len(kept) == len(edges):
            return edges
        edges = {path: {to: line for to, line in edges[path].items() if to in kept} for path in kept}


def circles(edges: Graph) -> list[list[Path]]:
    """Return the circles of *edges*, shortest first, each starting at its first file in order of names."""
    found = set()
    edges = without_ends(edges)
    for path, targets in edges.items():
        for target in targets:
            way = shortest_way(edges, target, path)
            if way is not None:
                first = way.index(min(way))
                found.add((*way[first:], *way[:first]))
    return [list(circle) for circle in sorted(found, key=lambda circle: (len(circle), circle))]


def main() -> None:
    """Print the circles and exit 1, or print that there are none."""
    edges = graph(ROOT, "snapferry")
    folders = [Path(name) for name in sys.argv[1:]]
    if folders:
        inside = {path for path in edges if any(path.is_relative_to(folder) for folder in folders)}
        edges = {path: {to: line for to, line in edges[path].items() if to in inside} for path in inside}
    found = circles(edges)
    for circle in found:
        following = [*circle[1:], circle[0]]
        steps = [f"{path}:{edges[path][to]}" for path, to in zip(circle, following, strict=True)]
        print(" -> ".join([*steps, str(circle[0])]))
    if found:
        sys.exit(f"{len(found)} circles of imports")
    print(f"no circle of imports between {len(edges)} files")


if __name__ == "__main__":
    main()
