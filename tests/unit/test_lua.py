"""The Lua files of the product: documented, each loaded by one name, and accepted by a real Redis."""

from __future__ import annotations

import importlib
import pkgutil
import re
import zipfile
from pathlib import Path

import pytest
import redis

from snapferry import workers
from snapferry.workers.lua import LuaScript

ROOT = Path(workers.__path__[0])
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.lua"))
LIBRARIES = [path for path in FILES if Path(path).name.startswith("lib_")]
SCRIPTS = [path for path in FILES if path not in LIBRARIES]
HEADER = re.compile(r"(?:--(?: .*)?\n)+")


def header(path: str) -> str:
    """Return the comment at the beginning of a file."""
    found = HEADER.match((ROOT / path).read_text())
    assert found, "it begins with a comment"
    return found.group()


def loaded() -> list[tuple[str, LuaScript]]:
    """Return file -> script, for every name in the modules of `snapferry.workers` that is bound to a script."""
    found: dict[tuple[str, int], LuaScript] = {}
    for module in pkgutil.walk_packages(workers.__path__, "snapferry.workers."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, LuaScript):
                # The same object under the same name is an import of it.
                found[name, id(value)] = value
    prefix = "snapferry.workers."
    return [
        (f"{script.package.removeprefix(prefix).replace('.', '/')}/lua/{script.name}.lua", script)
        for script in found.values()
    ]


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) > 30
    assert len(LIBRARIES) > 5


@pytest.mark.parametrize("path", SCRIPTS)
def test_a_script_has_a_header_with_keys_arguments_result_and_why_it_is_atomic(path: str) -> None:
    found = re.findall(r"^-- (\w+): \S", header(path), re.MULTILINE)
    assert found[:4] == ["KEYS", "ARGV", "Returns", "Atomic"]
    assert found[4:] in ([], ["Uses"])
    assert re.match(r"-- [A-Z].*\.$", header(path), re.MULTILINE), "it begins with a sentence"


@pytest.mark.parametrize("path", SCRIPTS)
def test_the_header_names_as_many_keys_as_the_script_reads(path: str) -> None:
    body = (ROOT / path).read_text().removeprefix(header(path))
    highest = max((int(number) for number in re.findall(r"KEYS\[(\d+)\]", body)), default=0)
    (keys,) = re.findall(r"^-- KEYS: ((?:.*\n--  +)*.*)$", header(path), re.MULTILINE)
    if "for each" in keys or "as in" in keys:
        return
    assert highest <= len(re.split(r"[,;:]", keys))


@pytest.mark.parametrize("path", LIBRARIES)
def test_a_library_names_what_it_defines_and_defines_just_that(path: str) -> None:
    assert re.match(r"-- Defines: \S", header(path))
    assert any(
        re.search(rf"^-- Uses: .*\b{Path(path).stem}\b", header(other), re.MULTILINE) for other in FILES
    )


def test_each_script_is_loaded_by_exactly_one_name() -> None:
    assert sorted(path for path, _ in loaded()) == SCRIPTS


def test_a_library_comes_before_the_scripts_that_use_it_and_once() -> None:
    for path, script in loaded():
        folder = (ROOT / path).parents[len(Path(script.name).parts)] / "lua"
        for name in re.findall(r"^-- Uses: (.*)$", header(path), re.MULTILINE):
            for library in name.split(", "):
                assert script.text.count((folder / f"{library}.lua").read_text()) == 1
        assert script.text.endswith((ROOT / path).read_text())


@pytest.mark.parametrize("path", FILES)
def test_a_file_compiles_by_itself(path: str, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.script_load((ROOT / path).read_text())


def test_all_scripts_compile_with_their_libraries(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert all(client.script_load(script.text) for _, script in loaded())


def test_scripts_are_found_in_a_zip_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "sample.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("zipped_scripts/__init__.py", "")
        file.writestr("zipped_scripts/lua/one.lua", "-- Uses: lib_two\nreturn 1\n")
        file.writestr("zipped_scripts/lua/lib_two.lua", "-- two\n")
    monkeypatch.syspath_prepend(str(archive))
    importlib.import_module("zipped_scripts")

    assert LuaScript.load("zipped_scripts", "one").text == "-- two\n-- Uses: lib_two\nreturn 1\n"
    with pytest.raises(OSError, match="missing"):
        LuaScript.load("zipped_scripts", "missing")
