"""The compiled extensions are in each wheel and clone where they can be compiled. Nothing fails where they cannot."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from snapferry.stores.backends.directory.native.extension import _extension
from snapferry.stores.manifest.lines import read_records
from snapferry.stores.treehash import is_fast

ROOT = Path(__file__).resolve().parents[2]

# A compiler that makes programs which are wrong: each of these constants differs.
WRONG_CONSTANTS = {
    "hashes": ("0x6A09E667", "0x6A09E668"),
    "lines": ("MOST_SIZE_DIGITS 19", "MOST_SIZE_DIGITS 18"),
    "links": ("(0x02 | 0x04 | 0x08)", "(0x02)"),
}
WRONG = """#!{python}
import os, sys
from pathlib import Path
arguments = sys.argv[1:]
at = arguments.index("-o") - 1
source = Path(arguments[at])
wrong = Path(__file__).with_name("wrong.c")
wrong.write_text(source.read_text().replace("{right}", "{wrong}"))
arguments[at] = str(wrong)
os.execvp("cc", ["cc", f"-I{{source.parent}}", *arguments])
"""


def load_hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HOOK = load_hook()
NAMES = {extension.installed.as_posix() for extension in HOOK.EXTENSIONS}


def can_compile() -> bool:
    try:
        HOOK.compiler()
    except HOOK.NotCompiledError:
        return False
    return True


LINE = f"F 644 {'0' * 64} 1 ./a\n".encode()


class Recorder:
    """Stands for what hatchling prints with."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def display_warning(self, text: str) -> None:
        self.warnings.append(text)


def wheel(folder: Path, **variables: str) -> tuple[Path, list[str]]:
    """Build a wheel; return it, and the lines on stderr that do not name it."""
    ended = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "SNAPFERRY_PURE"} | variables,
        check=True,
        capture_output=True,
        text=True,
        timeout=240,
    )
    (path,) = folder.iterdir()
    assert path.name in (ended.stdout + ended.stderr)
    return path, [line for line in ended.stderr.splitlines() if path.name not in line]


def test_the_extensions_are_used_wherever_they_can_be_compiled() -> None:
    compiled = can_compile()
    assert is_fast() == compiled, "run: .ci/setup all"
    assert (read_records(LINE, "", 0) is not None) == compiled, "run: .ci/setup all"
    assert (_extension is not None) == (compiled and sys.platform.startswith("linux")), "run: .ci/setup all"


def test_a_wheel_has_the_extension_or_one_line_with_the_reason(tmp_path: Path) -> None:
    path, lines = wheel(tmp_path)

    compiled = can_compile()
    assert len(lines) == (0 if compiled else 1), lines
    assert path.name.endswith("-py3-none-any.whl") == (not compiled)
    with zipfile.ZipFile(path) as archive:
        assert NAMES & set(archive.namelist()) == (NAMES if compiled else set())
        (tags,) = [name for name in archive.namelist() if name.endswith("/WHEEL")]
        told = archive.read(tags).decode()
    assert f"Root-Is-Purelib: {str(not compiled).lower()}\n" in told
    assert ("Tag: cp311-abi3-" in told) == compiled


@pytest.mark.parametrize("wanting", ["fails", "missing", "path", "hashes", "lines", "links", "asked"])
def test_a_wheel_without_the_extension_is_the_pure_one(wanting: str, tmp_path: Path) -> None:
    program = tmp_path / "compiler"
    right, wrong = WRONG_CONSTANTS.get(wanting, ("", ""))
    program.write_text(WRONG.format(python=sys.executable, right=right, wrong=wrong))
    program.chmod(0o755)
    variables = {
        "fails": {"CC": shutil.which("false") or ""},
        "missing": {"CC": str(tmp_path / "none")},
        "path": {"CC": "", "PATH": str(tmp_path)},
        "asked": {"SNAPFERRY_PURE": "1"},
    }.get(wanting, {"CC": str(program)})

    path, lines = wheel(tmp_path / "dist", **variables)

    assert path.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(path) as archive:
        assert not NAMES & set(archive.namelist())
        assert "snapferry/stores/treehash/reference.py" in archive.namelist()
    assert len(lines) == (0 if wanting == "asked" else 1), lines


def clone(tmp_path: Path) -> Path:
    """The files that the hook reads, and no more."""
    for each in HOOK.EXTENSIONS:
        for folder in {each.source.parent, each.reference.parent}:
            ignored = shutil.ignore_patterns("__pycache__", "*.so")
            shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    return tmp_path


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def install(root: Path) -> tuple[set[str], list[str]]:
    """Do what an editable install does; return all files, and the warnings."""
    recorder = Recorder()
    hook = HOOK.ExtensionHook(str(root), {}, None, None, "", "wheel", recorder)
    hook.initialize("editable", {})
    hook.finalize("editable", {}, "")
    return files(root), recorder.warnings


def test_an_editable_install_puts_each_extension_beside_its_source_and_removes_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SNAPFERRY_PURE", raising=False)
    root = clone(tmp_path)
    before = files(root)

    names, warnings = install(root)

    assert names - before == (NAMES if can_compile() else set())
    assert len(warnings) == (0 if can_compile() else 1)

    # A source that is no longer compiled must not leave the extension of an older source.
    for name in NAMES:
        (root / name).touch()
    monkeypatch.setenv("CC", str(tmp_path / "none"))
    names, warnings = install(root)

    assert names == before
    assert len(warnings) == 1


def test_the_reason_names_a_missing_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HOOK.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("CC", sys.executable)

    with pytest.raises(HOOK.NotCompiledError, match=r"Python\.h"):
        HOOK.compiler()
