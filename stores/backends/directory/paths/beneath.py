"""
Open files and directories below a directory, and nothing else.

*beneath*: no symbolic link is followed, neither on the way nor at the end. So what is opened is below the directory,
even if another process plants or swaps names meanwhile. Mounts are crossed.
*no wait*: a FIFO or a device is opened without waiting for its other end. The reader checks the type of the open file.

Linux does this in one call, openat2(2). Where it is missing (an old kernel, a sandbox that refuses it, another
system) each part of the path is opened by itself, relative to the one before it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import stat
import struct
import sys
from collections.abc import Callable
from functools import cache
from typing import Final

# On systems other than Linux a directory is opened for reading.
_PATH: Final = getattr(os, "O_PATH", os.O_RDONLY)

READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC
"""To read a file."""

LOOK: Final = _PATH | os.O_NOFOLLOW | os.O_CLOEXEC
"""To learn a file's type and length on Linux; its bytes cannot be read."""

FOLDER: Final = _PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""To reach what is in a directory."""

LIST: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""To list a directory, or to sync its file system."""

# As in openat2(2): RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH.
_RESOLVE: Final = 0x02 | 0x04 | 0x08

# The same number on all architectures of Linux except alpha and mips.
_OPENAT2: Final = 437
_MACHINES: Final = ("x86_64", "i686", "aarch64", "armv7l", "ppc64le", "s390x", "riscv64", "loongarch64")


# The structure open_how: flags, mode and resolve, 64 bits each.
_hows: Final = {flags: struct.pack("=QQQ", flags, 0, _RESOLVE) for flags in (READ, LOOK, FOLDER, LIST)}
_LOOK_HOW: Final = _hows[LOOK]
_READ_HOW: Final = _hows[READ]
_HOW_BYTES: Final = 24


def _find_openat2() -> Callable[..., int] | None:
    """Return syscall(2) if this system has openat2(2), else None."""
    if not sys.platform.startswith("linux") or platform.machine() not in _MACHINES:
        return None
    try:
        call = ctypes.CDLL(None, use_errno=True).syscall
    except (OSError, AttributeError):
        return None
    # `argtypes` and objects of ctypes would cost as much as the call itself. Without them bytes are passed as a pointer
    # and numbers as int, which libffi extends to the width of a register. The call below tests that.
    call.restype = ctypes.c_long
    root = os.open("/", FOLDER)
    try:
        descriptor = call(_OPENAT2, root, b".", _hows[FOLDER], _HOW_BYTES)
        if descriptor < 0:
            return None
        os.close(descriptor)
    finally:
        os.close(root)
    return call


_openat2 = _find_openat2()


def has_openat2() -> bool:
    """Return whether this system has openat2(2), and does not refuse it."""
    return _openat2 is not None


def _encoded(path: str) -> bytes:
    try:
        encoded = path.encode()
    except UnicodeEncodeError as error:
        raise OSError(errno.EILSEQ, os.strerror(errno.EILSEQ), path) from error
    if b"\0" in encoded:
        # The kernel would see the path up to there.
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    return encoded


def open_beneath(directory: int, path: str, flags: int) -> int:
    """
    Open *path*, relative and below the open *directory*; *flags* are one of `READ`, `LOOK`, `FOLDER`, `LIST`.

    Raises FileNotFoundError only where a name does not exist, and OSError for everything else, also for a dangling
    link.
    """
    if _openat2 is None:
        return _open_each_part(directory, path, flags)
    descriptor = _openat2(_OPENAT2, directory, _encoded(path), _hows[flags], _HOW_BYTES)
    if descriptor < 0:
        descriptor = _again(ctypes.get_errno(), directory, path, flags)
        if descriptor < 0:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return descriptor


def open_if_there(directory: int, path: str, flags: int) -> int:
    """As `open_beneath`, but return -1 where a name does not exist, which is cheaper than an exception."""
    if _openat2 is None:
        try:
            return _open_each_part(directory, path, flags)
        except FileNotFoundError:
            return -1
    descriptor = _openat2(_OPENAT2, directory, _encoded(path), _hows[flags], _HOW_BYTES)
    return descriptor if descriptor >= 0 else _again(ctypes.get_errno(), directory, path, flags)


def _again(number: int, directory: int, path: str, flags: int) -> int:
    """Return what `open_if_there` does, where the first call gave the error *number*."""
    while number == errno.EINTR and _openat2 is not None:
        descriptor = _openat2(_OPENAT2, directory, _encoded(path), _hows[flags], _HOW_BYTES)
        if descriptor >= 0:
            return descriptor
        number = ctypes.get_errno()
    if number == errno.ENOENT:
        return -1
    raise OSError(number, os.strerror(number), path)


def status_beneath(directory: int, path: str) -> os.stat_result | None:
    """
    Return the status of *path*, relative and below the open *directory*; of a link itself, if it ends in one.

    None where a name does not exist. Raises OSError for everything else.
    """
    if _openat2 is None:
        return _status_of_each_part(directory, path)
    descriptor = _openat2(_OPENAT2, directory, _encoded(path), _LOOK_HOW, _HOW_BYTES)
    if descriptor < 0:
        descriptor = _again(ctypes.get_errno(), directory, path, LOOK)
        if descriptor < 0:
            return None
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def read_beneath(directory: int, path: str, most_bytes: int) -> bytes | None:
    """
    Return the first *most_bytes* of the file *path*, relative and below the open *directory*, or fewer.

    None where `open_beneath` or pread(2) fails. What is no regular file cannot be read so, but for some devices.
    """
    try:
        if _openat2 is None:
            descriptor = _open_each_part(directory, path, READ)
        else:
            descriptor = _openat2(_OPENAT2, directory, _encoded(path), _READ_HOW, _HOW_BYTES)
    except OSError:
        return None
    if descriptor < 0:
        return None
    try:
        return os.pread(descriptor, most_bytes, 0)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _status_of_each_part(directory: int, path: str) -> os.stat_result | None:
    folder, _, name = path.rpartition("/")
    at = directory
    try:
        if folder:
            at = _open_each_part(directory, folder, FOLDER)
        return os.stat(_checked(name), dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return None
    finally:
        if at != directory:
            os.close(at)


def _open_each_part(directory: int, path: str, flags: int) -> int:
    *folders, name = path.split("/")
    at = directory
    try:
        for folder in folders:
            below = os.open(_checked(folder), FOLDER, dir_fd=at)
            if at != directory:
                os.close(at)
            at = below
        return os.open(_checked(name), flags, dir_fd=at)
    finally:
        if at != directory:
            os.close(at)


def _checked(part: str) -> str:
    if part in ("", "..") or "\0" in part:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), part)
    return part


@cache
def kind(mode: int) -> str:
    """Return the type of a file with this *mode*, in words."""
    for is_kind, words in (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISREG, "a regular file"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISBLK, "a block device"),
        (stat.S_ISCHR, "a character device"),
    ):
        if is_kind(mode):
            return words
    return "of an unknown kind"
