"""
Check the sizes of files and folders: house.py; exit 1 if the product breaks a rule.

Rules for the product: a Python file has at most 400 lines, half of them have fewer than 150, and a folder holds at
most 12 files besides `__init__.py`. Tests and benchmarks are measured the same way, and only printed.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
NOT_PRODUCT = ("tests", "benchmarks")

MOST_LINES = 400
MEDIAN_LINES = 150
MOST_FILES = 12


def source_files(folder: Path) -> list[Path]:
    """Return the files of a package and its subpackages: code and data, without caches."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.relative_to(ROOT).parts
    )


def measure(name: str, files: list[Path]) -> list[str]:
    """Print a line about *files*; return what is above a limit, a text each."""
    lines = {path: len(path.read_text().splitlines()) for path in files if path.suffix == ".py"}
    folders = Counter(path.parent for path in files if path.name != "__init__.py")
    middle = median(lines.values())
    longest = max(lines, key=lines.__getitem__)
    ((fullest, most),) = folders.most_common(1)
    print(
        f"{name}: {len(lines)} files of Python, median {middle:g} lines,"
        f" longest {lines[longest]} ({longest.relative_to(ROOT)}),"
        f" fullest folder {most} files ({fullest.relative_to(ROOT)})"
    )
    return [
        *(
            f"{path.relative_to(ROOT)}: {count} lines, at most {MOST_LINES} are allowed"
            for path, count in sorted(lines.items())
            if count > MOST_LINES
        ),
        *(
            f"{path.relative_to(ROOT)}/: {count} files, at most {MOST_FILES} are allowed"
            for path, count in sorted(folders.items())
            if count > MOST_FILES
        ),
        *(
            [f"{name}: the median is {middle:g} lines, it must be below {MEDIAN_LINES}"]
            if middle >= MEDIAN_LINES
            else []
        ),
    ]


def main() -> None:
    """Print the sizes of each part, then what breaks a rule in the product."""
    packages = [path.parent for path in sorted(ROOT.glob("[a-z]*/__init__.py"))]
    product = [
        path for package in packages if package.name not in NOT_PRODUCT for path in source_files(package)
    ]
    broken = measure("product", product)
    for name in NOT_PRODUCT:
        measure(name, source_files(ROOT / name))
    if broken:
        sys.exit("\n".join(broken))


if __name__ == "__main__":
    main()
