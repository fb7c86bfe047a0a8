"""Files that say whose credentials go where are read only if nobody else could have written them."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import pytest

from snapferry.workers.settings.toml_file import MAX_BYTES, InvalidToml, read_secret, read_toml

STRANGER = 54321


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "snapferry.toml"
    path.parent.mkdir(mode=0o755)
    path.write_text("a = 1\n")
    path.chmod(0o644)
    return path


def refused(path: Path | str) -> str:
    with pytest.raises(InvalidToml) as raised:
        read_toml(str(path))
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_file_of_ones_own_is_read(file: Path) -> None:
    assert read_toml(str(file)) == {"a": 1}


@pytest.mark.parametrize("mode", [0o646, 0o666, 0o602])
def test_a_file_that_everybody_can_write_is_not_used(file: Path, mode: int) -> None:
    file.chmod(mode)

    assert "can be written by everybody" in refused(file)


def test_the_mode_that_is_advised_keeps_a_secret(file: Path) -> None:
    file.chmod(0o646)
    assert "0644" in refused(file)

    file.chmod(0o662)
    with pytest.raises(InvalidToml, match="its mode to 0600"):
        read_secret(str(file))


@pytest.mark.parametrize("mode", [0o777, 0o757, 0o773])
def test_a_folder_that_everybody_can_write_is_not_trusted(file: Path, mode: int) -> None:
    file.parent.chmod(mode)

    assert f"{file.parent} can be written by everybody" in refused(file)


def test_a_folder_above_is_looked_at_as_well(file: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)

    assert f"{tmp_path} can be written by everybody" in refused(file)


def test_in_a_sticky_folder_a_file_is_read_by_its_whole_path_alone(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.parent.chmod(0o1777)
    monkeypatch.chdir(file.parent)

    assert read_toml(str(file)) == {"a": 1}
    assert "every user can create files in" in refused("snapferry.toml")
    file.parent.chmod(0o755)
    assert read_toml("snapferry.toml") == {"a": 1}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("which", ["file", "folder", "link"])
def test_what_belongs_to_another_user_is_not_used(file: Path, tmp_path: Path, which: str) -> None:
    (tmp_path / "link").symlink_to(file)
    owned = {"file": file, "folder": file.parent, "link": tmp_path / "link"}[which]
    os.chown(owned, STRANGER, -1, follow_symlinks=False)

    assert f"belongs to another user ({STRANGER})" in refused(tmp_path / "link")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_group_that_others_are_in_may_not_write(file: Path) -> None:
    os.chown(file, -1, STRANGER)
    file.chmod(0o664)

    assert f"can be written by group {STRANGER}" in refused(file)
    file.chmod(0o644)
    assert read_toml(str(file)) == {"a": 1}


@pytest.mark.parametrize("which", ["file", "folder"])
@pytest.mark.parametrize("right", [2, 4])
def test_one_whom_an_access_control_list_lets_write_may_not(file: Path, which: str, right: int) -> None:
    """The group bits of the mode are then the list's mask, and the group is this user's own."""
    path = file if which == "file" else file.parent
    entries = [
        (0x01, 7, -1),
        (0x02, right, STRANGER),
        (0x04, 5, -1),
        (0x10, 7 & (right | 5), -1),
        (0x20, 5, -1),
    ]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(path, "system.posix_acl_access", acl)
    except (AttributeError, OSError):
        pytest.skip("this file system has no access control lists")

    if right == 2:
        assert "access control list" in refused(file)
    else:
        assert read_toml(str(file)) == {"a": 1}


def test_a_link_is_followed_and_all_folders_on_its_way_count(file: Path, tmp_path: Path) -> None:
    middle = tmp_path / "middle"
    middle.mkdir()
    (middle / "link").symlink_to(file.parent)
    (tmp_path / "snapferry.toml").symlink_to("middle/link/snapferry.toml")

    assert read_toml(str(tmp_path / "snapferry.toml")) == {"a": 1}
    middle.chmod(0o777)
    assert f"{middle} can be written by everybody" in refused(tmp_path / "snapferry.toml")


def test_a_file_system_that_nobody_can_write_is_trusted(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So are ConfigMaps of Kubernetes: folders for everybody, mounted read-only."""
    file.chmod(0o666)
    file.parent.chmod(0o777)

    class ReadOnly:
        f_flag = os.ST_RDONLY

    monkeypatch.setattr(os, "fstatvfs", lambda _: ReadOnly)
    monkeypatch.setattr(os, "statvfs", lambda _: ReadOnly)

    assert read_toml(str(file)) == {"a": 1}


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)

    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)
    assert refused(tmp_path / "fifo") == "is not a regular file"
    assert refused("/dev/zero") == "is not a regular file"
    assert refused(tmp_path) == "is not a regular file"


def test_a_huge_file_is_not_read(file: Path) -> None:
    with file.open("wb") as out:
        out.truncate(1 << 40)

    assert refused(file) == f"has more than {MAX_BYTES:,} bytes"
