"""
Check the sizes of files and folders: house.py; exit 1 if the product breaks a rule.

Rules for the product: a file of code (Python, Lua) has at most 400 lines, the median of them is below 150, and a
folder holds at most 12 files. `__init__.py` and `py.typed` do not count as files of a folder. Tests and benchmarks are
measured the same way, but nothing is required of them.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
NOT_PRODUCT = ("tests", "benchmarks")
CODE = {".py", ".lua"}
MARKERS = {"__init__.py", "py.typed"}

MAX_LINES = 400
MEDIAN_LINES = 150
MAX_FILES = 12


def source_files(folder: Path) -> list[Path]:
    """Return the files of a package and its subpackages, without caches, relative to the repository."""
    paths = (path.relative_to(ROOT) for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in paths if "__pycache__" not in path.parts)


def measure(name: str, files: list[Path]) -> Iterator[str]:
    """Print a summary of *files*; yield each rule that they break."""
    lines = {path: len((ROOT / path).read_text().splitlines()) for path in files if path.suffix in CODE}
    folders = Counter(path.parent for path in files if path.name not in MARKERS)
    middle = median(lines.values())
    longest = max(lines, key=lines.__getitem__)
    ((fullest, most),) = folders.most_common(1)
    print(
        f"{name}: {len(lines)} files, median {middle:g} lines, longest {longest} with {lines[longest]},"
        f" fullest folder {fullest} with {most} files"
    )
    for path, count in sorted(lines.items()):
        if count > MAX_LINES:
            yield f"{path}: {count} lines, maximum {MAX_LINES}"
    for path, count in sorted(folders.items()):
        if count > MAX_FILES:
            yield f"{path}/: {count} files, maximum {MAX_FILES}"
    if middle >= MEDIAN_LINES:
        yield f"{name}: median {middle:g} lines, must be below {MEDIAN_LINES}"


def main() -> None:
    """Print a summary of each part, then the rules that the product breaks."""
    packages = [
        path.parent for path in ROOT.glob("[a-z]*/__init__.py") if path.parent.name not in NOT_PRODUCT
    ]
    broken = list(measure("product", [path for package in packages for path in source_files(package)]))
    for name in NOT_PRODUCT:
        list(measure(name, source_files(ROOT / name)))
    if broken:
        sys.exit("\n".join(broken))


if __name__ == "__main__":
    main()
