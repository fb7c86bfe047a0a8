"""Directory trees that are easily got wrong, each made by a function of its own."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

LARGE_BYTES: Final = 3 * 1024 * 1024 + 17


def nothing(root: Path) -> None:
    """Make no file at all: only the root itself is listed."""


def nested(root: Path) -> None:
    (root / "a" / "b" / "c" / "d").mkdir(parents=True)
    (root / "a" / "one").write_bytes(b"one")
    (root / "a" / "b" / "two").write_bytes(b"two")
    (root / "a" / "b" / "c" / "d" / "three").write_bytes(b"three")
    # Sorted by bytes of the whole path, "a-b" comes before "a/..." and "a.txt" between the two.
    (root / "a-b").write_bytes(b"dash")
    (root / "a.txt").write_bytes(b"dot")
    (root / "B").write_bytes(b"capital")


def empty_directory(root: Path) -> None:
    (root / "empty" / "inner").mkdir(parents=True)
    (root / "file").write_bytes(b"beside it")


def empty_file(root: Path) -> None:
    (root / "zero").touch()
    (root / "another zero").touch()
    (root / "file").write_bytes(b"beside them")


def duplicates(root: Path) -> None:
    for name in ("first", "second", "third"):
        (root / name).write_bytes(b"the same bytes")
        (root / f"in {name}").mkdir()
        (root / f"in {name}" / "copy").write_bytes(b"the same bytes")


def links(root: Path) -> None:
    """Make links that snapdir follows: their entries carry the target's checksum and their own size."""
    (root / "target").write_bytes(b"a target whose size is not its link's")
    (root / "link").symlink_to("target")
    (root / "zero").touch()
    (root / "link to zero").symlink_to("zero")
    (root / "folder").mkdir()
    (root / "folder" / "inner").write_bytes(b"inner")
    (root / "link to folder").symlink_to("folder")


def unicode_names(root: Path) -> None:
    for name in (
        "übersicht",
        "u\u0308bersicht",
        "概要",
        "🦀",
        "\u202eltr",
        "a\u00a0b",
        "\ue000",
        "\U0001f600x",
    ):
        (root / name).write_bytes(name.encode())


def odd_names(root: Path) -> None:
    for name in (
        " leading",
        "trailing ",
        "  ",
        "two  spaces",
        "tab\tinside",
        "\ttab first",
        "carriage\rreturn",
    ):
        (root / name).write_bytes(name.encode())
    for name in ("#comment", "# comment", "\\", '"', "%20", "*", "F 644 x 1 y", "\x01", "\x7f", "-rf"):
        (root / name).write_bytes(name.encode())
    (root / "# folder ").mkdir()
    (root / "# folder " / "#").write_bytes(b"#")


def modes(root: Path) -> None:
    for mode in (0o600, 0o640, 0o644, 0o755, 0o777, 0o444, 0o4755):
        path = root / f"mode {mode:o}"
        path.write_bytes(f"{mode:o}".encode())
        path.chmod(mode)
    (root / "private").mkdir(mode=0o700)
    (root / "private" / "file").write_bytes(b"private")


def large(root: Path) -> None:
    (root / "large").write_bytes(random.Random(1).randbytes(LARGE_BYTES))
    (root / "small").write_bytes(b"small")


TREES: Final[dict[str, Callable[[Path], None]]] = {
    made.__name__: made
    for made in (
        nothing,
        nested,
        empty_directory,
        empty_file,
        duplicates,
        links,
        unicode_names,
        odd_names,
        modes,
        large,
    )
}


def everything(root: Path) -> None:
    """Make all of the trees above, each in a folder of its own."""
    for name, make in TREES.items():
        (root / name).mkdir()
        make(root / name)
