"""
Compile the extension of `snapferry.stores.treehash` while a wheel is built, where that is possible.

The extension is optional. Where there is no C compiler or no Python.h, or if the compiler fails, one line on stderr
gives the reason, and the wheel is the pure one. SNAPFERRY_PURE=1 asks for the pure wheel, as a release does. CC names
another compiler than `cc`. An editable install gets the extension beside its source.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

FOLDER = Path("snapferry/stores/treehash")
SOURCE = FOLDER / "_blake3.c"
EXTENSION = FOLDER / "_blake3.abi3.so"

FLAGS = ("-std=c11", "-O3", "-fPIC", "-fvisibility=hidden")
LINK = ("-bundle", "-undefined", "dynamic_lookup") if sys.platform == "darwin" else ("-shared",)
PATIENCE_S = 300

# A process of its own, because a wrong extension may end it. Arguments: the extension, and reference.py.
CHECK = """
import sys
from importlib.machinery import ExtensionFileLoader, SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader

def load(loader):
    module = module_from_spec(spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module

compiled = load(ExtensionFileLoader("_blake3", sys.argv[1]))
reference = load(SourceFileLoader("reference", sys.argv[2]))
data = bytes(at * at % 251 for at in range(35 * 1024 + 1))
pieces = [data[:length] for length in (0, 1, 64, 65, 1024, 1025, 2048, 3073, 4096, 5 * 1024, 17 * 1024)] + [None, data]
for kernel in range(len(compiled.KERNELS)):
    value = compiled.chaining_value(data, 2**40, kernel)
    if value != reference.chaining_value(memoryview(data), 2**40):
        sys.exit(f"kernel {compiled.KERNELS[kernel]} is wrong")
    if compiled.merged(value * 37, kernel) != reference.merged(value * 37):
        sys.exit(f"kernel {compiled.KERNELS[kernel]} merges wrongly")
    if compiled.digests(pieces, kernel) != reference.digests(pieces):
        sys.exit(f"kernel {compiled.KERNELS[kernel]} hashes pieces wrongly")
"""


class NotCompiledError(Exception):
    """The reason why there is no extension."""


def compiler() -> list[str]:
    """Return the command of the C compiler. Raises `NotCompiledError` if something that it needs is missing."""
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise NotCompiledError("this Python has no stable ABI")
    command = shlex.split(os.environ.get("CC", "")) or ["cc"]
    if not shutil.which(command[0]):
        raise NotCompiledError(f"there is no C compiler ({command[0]})")
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        raise NotCompiledError("there is no Python.h; its package is python3-dev, or python3-devel")
    return command


def finished(*command: str | Path) -> None:
    """Run *command*. Raises `NotCompiledError`, with the most telling line of its output, if it fails."""
    try:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotCompiledError(f"{command[0]}: {error}") from error
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
        telling = next((line for line in lines if "error" in line), lines[-1])
        raise NotCompiledError(f"{command[0]}: {telling.strip()}")


def build(root: Path, folder: Path) -> Path:
    """Compile the extension into *folder*, check it against `reference`, and return its path."""
    made = folder / EXTENSION.name
    include = f"-I{sysconfig.get_path('include')}"
    finished(*compiler(), *FLAGS, *LINK, include, root / SOURCE, "-o", made)
    finished(sys.executable, "-B", "-c", CHECK, made, root / FOLDER / "reference.py")
    return made


def tag() -> str:
    """Return the tag of a wheel with the extension: this platform, Python 3.11 and later."""
    platforms = list(platform_tags())
    return f"cp311-abi3-{next((name for name in platforms if name.startswith('linux_')), platforms[0])}"


class ExtensionHook(BuildHookInterface[Any]):
    """What hatchling calls before and after it makes a wheel."""

    _folder: TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the extension. *version* is "editable" for an editable install."""
        root = Path(self.root)
        installed = root / EXTENSION
        # On the file system of the source, so that the extension can be renamed into place.
        parent = installed.parent if version == "editable" else None
        self._folder = TemporaryDirectory(prefix=".build-", dir=parent)
        made = self._made(root, Path(self._folder.name))
        if made is None:
            if version == "editable":
                installed.unlink(missing_ok=True)
        elif version == "editable":
            # Processes that have loaded the old one keep it.
            made.replace(installed)
        else:
            build_data["force_include"][str(made)] = EXTENSION.as_posix()
            build_data["pure_python"] = False
            build_data["tag"] = tag()

    def _made(self, root: Path, folder: Path) -> Path | None:
        """Return the path of the compiled extension. If it was asked for and there is none, print the reason."""
        if os.environ.get("SNAPFERRY_PURE", "0") not in {"", "0"}:
            return None
        try:
            return build(root, folder)
        except NotCompiledError as reason:
            self.app.display_warning(f"snapferry is built without its compiled extension: {reason}")
            return None

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what is not part of the wheel."""
        if self._folder is not None:
            self._folder.cleanup()
