"""
TOML files with the configuration of a process.

Such a file decides which stores are opened with this process's credentials. So it is read only if no user except this
user and root could have written it.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
import tomllib
from contextlib import suppress
from typing import Any, Final

# The largest file that is read. A configuration of ten thousand stores is smaller.
MAX_BYTES: Final = 1024 * 1024


class InvalidToml(Exception):
    """A file cannot be read, or is not TOML. The message gives the reason in one line, without the file's name."""


def read_toml(path: str) -> dict[str, Any]:
    """Return the content of the file at *path*. Raises `InvalidToml`, also if others could have written the file."""
    return parse_toml(read_text(path))


def read_text(path: str) -> str:
    """Return the text of the file at *path*. Raises `InvalidToml`, also if others could have written the file."""
    try:
        return _read(path).decode("utf-8")
    except OSError as error:
        raise InvalidToml(error.strerror or str(error)) from None
    except UnicodeDecodeError:
        raise InvalidToml("is not TOML: it is not in UTF-8") from None


def parse_toml(text: str) -> dict[str, Any]:
    """Return the content of the TOML file *text*. Raises `InvalidToml`, which names the line."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise InvalidToml("is not TOML: it is nested too deeply") from None
    except ValueError as error:
        raise InvalidToml(f"is not TOML: {str(error)[:200]}") from None


def read_secret(path: str) -> bytes:
    """
    Return the content of a file that only its owner may read. Raises `InvalidToml` and OSError.

    On a read-only file system, such as a mounted secret, the mode of the file is not checked.
    """
    found = os.stat(path)
    if found.st_mode & (stat.S_IROTH | stat.S_IXOTH) and not os.statvfs(path).f_flag & os.ST_RDONLY:
        raise InvalidToml("is not used, because everybody can read it; change its mode to 0600")
    return _read(path, mode="0600")


def _read(path: str, mode: str = "0644") -> bytes:
    # Without O_NONBLOCK, opening a FIFO would wait for a writer.
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
                    f"is not used, because it {why}; change its owner to you or root, and its mode to {mode}"
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
    """Refuse a file that other users could replace, because they can write to a folder or link of its path."""
    bare = not os.path.dirname(path)
    for at in _way(path):
        found = os.lstat(at)
        if os.statvfs(at).f_flag & os.ST_RDONLY:
            continue
        open_to_all = bool(found.st_mode & stat.S_ISVTX) and bool(found.st_mode & stat.S_IWOTH)
        # The mode of a link has no meaning.
        why = _foreign(found, at, owner_only=open_to_all or stat.S_ISLNK(found.st_mode))
        if why:
            raise InvalidToml(
                f"is not used, because {at} {why}, so another user could have replaced the file"
            )
        if bare and open_to_all and at == os.getcwd():
            raise InvalidToml(
                f"is not used, because every user can create files in {at}; if you mean this file, give its full path"
                " (--config, SNAPFERRY_CONFIG)"
            )


def _way(path: str) -> list[str]:
    """Return every folder and every link that the system visits on the path to the file at *path*."""
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
    """Return how other users could have written the file with these attributes, "" if they could not."""
    if found.st_uid not in {0, os.geteuid()}:
        return f"belongs to another user ({found.st_uid})"
    if owner_only:
        return ""
    if found.st_mode & stat.S_IWOTH:
        return "can be written by everybody"
    if found.st_mode & stat.S_IWGRP and not _own_group(found.st_gid):
        return f"can be written by group {found.st_gid}"
    if found.st_mode & stat.S_IWGRP and _has_acl(at):
        return "can be written by users of its access control list (see getfacl)"
    return ""


def _has_acl(at: str | int) -> bool:
    """Return whether a file has an access control list. Then the group bits of its mode are the mask of the list."""
    if not hasattr(os, "getxattr"):
        return False
    try:
        return bool(os.getxattr(at, "system.posix_acl_access"))
    except OSError:
        return False


def _own_group(gid: int) -> bool:
    """Return whether a group has no member except this user, or is root's group."""
    if gid == 0:
        return True
    with suppress(KeyError):
        user = pwd.getpwuid(os.geteuid())
        group = grp.getgrgid(gid)
        return gid == user.pw_gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
    return False
