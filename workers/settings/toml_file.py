"""
Files in TOML that a process takes its configuration from, and what is wrong with one in words.

What is in such a file decides which stores are opened with this process's credentials. So it is read only if nobody
but this user, and root, could have written it.
"""

from __future__ import annotations

import os
import stat
import tomllib
from contextlib import suppress
from typing import Any, Final

# A configuration of ten thousand stores is shorter.
MAX_BYTES: Final = 1024 * 1024


class InvalidToml(Exception):
    """A file cannot be read, or is no TOML; the message says why, in one line, without the file's name."""


def read_toml(path: str) -> dict[str, Any]:
    """Return what the file at *path* says. Raises `InvalidToml`, also where others could have written the file."""
    try:
        return tomllib.loads(_read(path).decode("utf-8"))
    except OSError as error:
        raise InvalidToml(error.strerror or str(error)) from None
    except UnicodeDecodeError:
        raise InvalidToml("is no TOML: it is not in UTF-8") from None
    except RecursionError:
        raise InvalidToml("is no TOML: it is nested too deeply") from None
    except ValueError as error:
        raise InvalidToml(f"is no TOML: {str(error)[:200]}") from None


def _read(path: str) -> bytes:
    # Opening a FIFO would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise InvalidToml("is not a regular file")
        if found.st_size > MAX_BYTES:
            raise InvalidToml(f"has more than {MAX_BYTES:,} bytes")
        if not os.fstatvfs(descriptor).f_flag & os.ST_RDONLY:
            why = _foreign(found, descriptor)
            if why:
                raise InvalidToml(
                    f"is not used, because it {why}; let it belong to you or root, with mode 0644"
                )
        _check_folders(path)
        data = bytearray()
        while len(data) <= MAX_BYTES and (chunk := os.read(descriptor, MAX_BYTES + 1 - len(data))):
            data += chunk
    finally:
        os.close(descriptor)
    if len(data) > MAX_BYTES:
        raise InvalidToml(f"has more than {MAX_BYTES:,} bytes")
    return bytes(data)


def _check_folders(path: str) -> None:
    """Refuse a file in whose place others could put another one: by a folder or a link on the way to it."""
    bare = not os.path.dirname(path)
    for at in _way(path):
        found = os.lstat(at)
        if os.statvfs(at).f_flag & os.ST_RDONLY:
            continue
        open_to_all = bool(found.st_mode & stat.S_ISVTX) and bool(found.st_mode & stat.S_IWOTH)
        # The mode of a link says nothing.
        why = _foreign(found, at, owner_only=open_to_all or stat.S_ISLNK(found.st_mode))
        if why:
            raise InvalidToml(
                f"is not used, because {at} {why}, and its file could be another one than you wrote"
            )
        if bare and open_to_all and at == os.getcwd():
            raise InvalidToml(
                f"is not used, because everybody can put files into {at}; if it is meant, give its whole path"
                " (--config, SNAPFERRY_CONFIG)"
            )


def _way(path: str) -> list[str]:
    """Return every folder and every link on the way to the file at *path*, as the system follows them."""
    found = ["/"]
    at = "/"
    ahead = [part for part in reversed(os.path.abspath(path).split("/")) if part]
    for _ in range(4096):
        if not ahead:
            break
        part = ahead.pop()
        following = os.path.dirname(at) if part == ".." else os.path.join(at, part)
        if os.path.islink(following):
            found.append(following)
            target = os.readlink(following)
            at = "/" if target.startswith("/") else at
            ahead += [part for part in reversed(target.split("/")) if part not in {"", "."}]
        else:
            at = following
            if ahead:
                found.append(at)
    return found


def _foreign(found: os.stat_result, at: str | int, *, owner_only: bool = False) -> str:
    """Return how others could have written what is *at* a path or open, and has these attributes; "" if not."""
    if found.st_uid not in {0, os.geteuid()}:
        return f"belongs to another user ({found.st_uid})"
    if owner_only:
        return ""
    if found.st_mode & stat.S_IWOTH:
        return "can be written by everybody"
    if found.st_mode & stat.S_IWGRP and not _own_group(found.st_gid):
        return f"can be written by group {found.st_gid}"
    if found.st_mode & stat.S_IWGRP and _has_acl(at):
        return "can be written by those that its access control list names (see getfacl)"
    return ""


def _has_acl(at: str | int) -> bool:
    """Return whether what is *at* a path or open has an access control list: the mode's group bits are its mask."""
    if not hasattr(os, "getxattr"):
        return False
    try:
        return bool(os.getxattr(at, "system.posix_acl_access"))
    except OSError:
        return False


def _own_group(gid: int) -> bool:
    """Return whether a group has no member but this user, or is root's."""
    if gid == 0:
        return True
    import grp
    import pwd

    with suppress(KeyError):
        user = pwd.getpwuid(os.geteuid())
        group = grp.getgrgid(gid)
        return gid == user.pw_gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
    return False
