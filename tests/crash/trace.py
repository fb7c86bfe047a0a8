"""
The system calls of a command that change what is below a directory, recorded with strace, in their order.

All processes of the command are recorded into one file. A call that changes something counts when it returns, so its
effect is never recorded before it is there. A call that waits for the disk covers only what returned before it began.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tests.servers import missing, program

CALLS: Final = (
    "open", "openat", "openat2", "creat", "write", "pwrite64", "writev", "pwritev", "pwritev2", "copy_file_range",
    "sendfile", "splice", "truncate", "ftruncate", "fallocate", "rename", "renameat", "renameat2", "link", "linkat",
    "symlink", "symlinkat", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "fsync", "fdatasync", "syncfs", "sync",
    "fchmod", "fchmodat", "chmod", "io_uring_setup",
)  # fmt: skip

# More than any file of a test has.
_LONGEST: Final = 64 * 1024 * 1024

_is_line: Final = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)(?:<(.*?)>)?.*", re.DOTALL).fullmatch
_is_begin: Final = re.compile(r"(\d+) +(\w+)\((.*) <unfinished \.\.\.>", re.DOTALL).fullmatch
_is_end: Final = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)", re.DOTALL).fullmatch
_arguments: Final = re.compile(
    r'\s*(?:"((?:\\x[0-9a-f]{2})*)"|(-?\d+|AT_FDCWD)<((?:\\x[0-9a-f]{2})*)(?:\(deleted\))?>|[^,\s][^,]*)'
).finditer


class Untraceable(Exception):
    """A call changed a file in a way that the recording does not know."""


@dataclass(frozen=True)
class Call:
    """
    A call that changed something, or waited for the disk.

    *kind*: mkdir, create, write, rename, link, unlink, rmdir, chmod, fsync, syncfs. *path* and *target* are
    below the root. *since* is the index of the first call that returned after this one began.
    """

    kind: str
    path: str
    target: str = ""
    data: bytes = b""
    mode: int = 0
    since: int = 0


def record(command: Sequence[str], root: Path, log: Path, env: Mapping[str, str] | None = None) -> list[Call]:
    """Run *command* to its end, which must be a success; return its calls below *root*."""
    strace = program("strace") or missing(
        "strace is not installed; on Debian and Ubuntu: apt-get install strace"
    )
    traced = [strace, "-f", "-qq", "-y", "-xx", "-s", str(_LONGEST), "--seccomp-bpf", "-e", "signal=none"]
    traced += ["-e", f"trace={','.join(CALLS)}", "-o", str(log), *command]
    ended = subprocess.run(traced, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    with log.open(encoding="ascii", errors="surrogateescape") as lines:
        return list(calls(lines, str(root)))


def calls(lines: Iterable[str], root: str) -> Iterator[Call]:
    """Yield the calls below *root* in the output *lines* of strace."""
    begun: dict[str, tuple[str, int]] = {}
    reader = _Reader(root)
    index = 0
    for line in lines:
        text, since = line.rstrip("\n"), index
        if found := _is_begin(text):
            begun[found[1]] = (f"{found[1]} {found[2]}({found[3]}", index)
            continue
        if found := _is_end(text):
            before, since = begun.pop(found[1])
            text = before + found[3]
        if not (found := _is_line(text)) or int(found[4]) < 0:
            continue
        call = reader.call(found[2], found[3], int(found[4]), _text(found[5]))
        if call is not None:
            index += 1
            yield replace(call, since=since)


class _Reader:
    """Reads calls, one after the other."""

    def __init__(self, root: str) -> None:
        self._root = root
        # The files that are there.
        self._known: set[str] = set()
        # Descriptor -> the path that was opened, for files that are linked by their descriptor.
        self._opened: dict[int, str] = {}

    def call(self, name: str, arguments: str, result: int, opened: str) -> Call | None:
        """Return what a call did below the root, None if that was nothing."""
        words = list(_arguments(arguments))
        if name in ("open", "openat", "openat2", "creat"):
            return self._open(arguments, result, self._below(opened))
        if name in ("fsync", "fdatasync", "syncfs", "sync"):
            path = "" if name == "sync" else self._of(words[0])
            return None if path is None else Call("syncfs" if name.startswith("sync") else "fsync", path)
        if name in ("rename", "renameat", "renameat2", "link", "linkat"):
            return self._two_names("rename" if name.startswith("rename") else "link", words, arguments)
        if name in _ONE_NAME:
            path = self._named(words, 1 if name.endswith("at") else 0)
            if path is None:
                return None
            kind = "rmdir" if "AT_REMOVEDIR" in arguments else _ONE_NAME[name]
            if kind in ("unlink", "rmdir"):
                self._known.discard(path)
            return Call(kind, path, mode=_mode(arguments))
        path = next((found for word in words if (found := self._of(word)) is not None), None)
        if path is None:
            return None
        if name == "write":
            return Call("write", path, data=_bytes(words[1][1])[:result])
        if name == "fchmod":
            return Call("chmod", path, mode=_mode(arguments))
        raise Untraceable(f"{name} {path}")

    def _open(self, arguments: str, result: int, path: str | None) -> Call | None:
        if path is None:
            self._opened.pop(result, None)
            return None
        self._opened[result] = path
        if "O_CREAT" in arguments and path not in self._known:
            self._known.add(path)
            return Call("create", path)
        if "O_TRUNC" in arguments:
            raise Untraceable(f"truncated: {path}")
        return None

    def _two_names(self, kind: str, words: list[re.Match[str]], arguments: str) -> Call | None:
        first, second = (1, 3) if words[0][3] is not None else (0, 1)
        path, target = self._named(words, first), self._named(words, second)
        descriptor = _by_descriptor(_text(words[first][1]))
        if path is None and descriptor is not None:
            path = self._opened.get(descriptor)
        if (path, target) == (None, None):
            return None
        if path is None or target is None:
            raise Untraceable(f"{kind} from or to elsewhere: {arguments[:400]}")
        if kind == "rename":
            self._known.discard(path)
        self._known.add(target)
        return Call(kind, path, target)

    def _named(self, words: list[re.Match[str]], at: int) -> str | None:
        """Return the path that an argument names, relative to the directory in the argument before it."""
        path = _text(words[at][1])
        if not path.startswith("/") and at and words[at - 1][3] is not None:
            path = f"{_text(words[at - 1][3])}/{path}"
        return self._below(os.path.normpath(path))

    def _of(self, word: re.Match[str]) -> str | None:
        return None if word[3] is None else self._below(_text(word[3]))

    def _below(self, path: str) -> str | None:
        if path == self._root:
            return ""
        return path.removeprefix(f"{self._root}/") if path.startswith(f"{self._root}/") else None


_ONE_NAME: Final = {
    "unlink": "unlink", "unlinkat": "unlink", "rmdir": "rmdir", "mkdir": "mkdir", "mkdirat": "mkdir",
    "chmod": "chmod", "fchmodat": "chmod",
}  # fmt: skip


def _by_descriptor(path: str) -> int | None:
    number = path.removeprefix("/proc/self/fd/")
    return int(number) if number != path else None


def _mode(arguments: str) -> int:
    last = arguments.rpartition(",")[2].strip()
    return int(last, 8) if last.isdigit() else 0


def _text(escaped: str | None) -> str:
    return os.fsdecode(_bytes(escaped))


def _bytes(escaped: str | None) -> bytes:
    return bytes.fromhex((escaped or "").replace("\\x", ""))
