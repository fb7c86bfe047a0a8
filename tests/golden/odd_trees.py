"""Trees whose snapshots are easily got wrong because of links, modes and names, and random trees of all that is odd."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final


def loops_and_dangling(root: Path) -> None:
    (root / "file").write_bytes(b"file")
    (root / "folder").mkdir()
    (root / "folder" / "inner").write_bytes(b"inner")
    (root / "folder" / "up").symlink_to("../folder")
    (root / "nowhere").symlink_to("not here")
    (root / "one").symlink_to("two")
    (root / "two").symlink_to("one")
    (root / "itself").symlink_to("itself")


def out_of_the_tree(root: Path) -> None:
    outside = root.parent / f"beside {root.name}"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "file").write_bytes(b"outside")
    (root / "relative").symlink_to(f"../{outside.name}")
    (root / "absolute").symlink_to(outside / "deep" / "file")
    (root / "through").symlink_to("relative/deep")


def special_files(root: Path) -> None:
    (root / "file").write_bytes(b"file")
    os.mkfifo(root / "fifo")
    (root / "link to fifo").symlink_to("fifo")
    (root / "link to null").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as found:
        here = Path.cwd()
        os.chdir(root)
        try:
            found.bind("socket")
        finally:
            os.chdir(here)


def hard_links(root: Path) -> None:
    (root / "first").write_bytes(b"one file, two names")
    os.link(root / "first", root / "second")


def store_inside(root: Path) -> None:
    for name in (
        ".objects/aaa/bbb/ccc/ddd",
        ".manifests/x",
        ".snapdir/cache",
        ".snapdir-manifest",
        ".git/config",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def all_modes(root: Path) -> None:
    for mode in (0o000, 0o001, 0o010, 0o100, 0o2755, 0o1644, 0o7777):
        (root / f"file {mode:o}").write_bytes(b"x")
        (root / f"file {mode:o}").chmod(mode)
    for mode in (0o700, 0o1777, 0o2775, 0o555, 0o711):
        (root / f"folder {mode:o}").mkdir()
        (root / f"folder {mode:o}").chmod(mode)
    (root / "link").symlink_to("folder 700")


def same_checksums(root: Path) -> None:
    """Directories whose checksums do not tell them apart: only the distinct bytes in them count."""
    for name, files in {"a": "xx", "b": "x", "c": "xyx", "d": "yx"}.items():
        (root / name).mkdir()
        for number, data in enumerate(files):
            (root / name / str(number)).write_bytes(data.encode())
        (root / name / "empty").mkdir()


ODD_TREES: Final[dict[str, Callable[[Path], None]]] = {
    made.__name__: made
    for made in (
        loops_and_dangling,
        out_of_the_tree,
        special_files,
        hard_links,
        store_inside,
        all_modes,
        same_checksums,
    )
}

_NAMES: Final = (
    "a", "b", "a-b", "a.txt", "A", " ", " a", "a ", "#", "\t", "c\r", "d\rx", "é", "e\u0301", "🦀", "\ue000", "..a",
    "-", "\\", "*", "F 644 x 1 y", ".git", "~", "\x01", "0" * 60,
)  # fmt: skip

PATTERNS: Final = (
    "/a$", "/b/", r"\.git", "é", r"^/.*/A$", "(?i)/A$", "[[:alpha:]]-", r"\d\d", r" $", "a|🦀", r"/[^/]*\r", r"\w\.\w",
)  # fmt: skip


def random_tree(root: Path, seed: int) -> None:
    """Make a tree of at most some 60 entries; the same for the same *seed*."""
    choose = random.Random(seed)
    root.mkdir()
    folders, made = [root], [root]
    for _ in range(choose.randint(0, 40)):
        folder = choose.choice(folders)
        path = folder / choose.choice(_NAMES)
        if os.path.lexists(path):
            continue
        what = choose.random()
        if what < 0.45:
            path.write_bytes(choose.choice((b"", b"x", b"y", path.name.encode(), choose.randbytes(5000))))
            path.chmod(choose.choice((0o644, 0o600, 0o755, 0o4755, 0o1644, 0o444)))
        elif what < 0.7:
            path.mkdir(mode=choose.choice((0o755, 0o700, 0o1777, 0o775)))
            folders.append(path)
        elif what < 0.74:
            os.mkfifo(path)
        elif what < 0.78:
            files = [one for one in made if one.is_file() and not one.is_symlink()]
            if files:
                os.link(choose.choice(files), path)
        else:
            # No directory above the link: each such link multiplies the tree.
            targets = [one for one in made if one != root and one not in path.parents and not one.is_dir()]
            targets += [one for one in made if one.is_dir() and not any(_links_in(one))]
            targets = [one for one in targets if one not in path.parents]
            target: str | Path = choose.choice(targets) if targets else "nowhere"
            if choose.random() < 0.2:
                target = "nowhere"
            path.symlink_to(os.path.relpath(target, folder) if choose.random() < 0.8 else target)
        if os.path.lexists(path):
            made.append(path)


def _links_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_symlink()]
