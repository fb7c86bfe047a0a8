"""
Compile the C extensions while a wheel is built, where that is possible: all of them, or none.

They are optional. Where there is no C compiler or no Python.h, or if the compiler fails, one line on stderr gives the
reason, and the wheel is the pure one. SNAPFERRY_PURE=1 asks for the pure wheel, as a release does. CC names another
compiler than `cc`. An editable install gets each extension beside its source.
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
from typing import Any, NamedTuple

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

FLAGS = ("-std=c11", "-O3", "-fPIC", "-fvisibility=hidden")
LINK = ("-bundle", "-undefined", "dynamic_lookup") if sys.platform == "darwin" else ("-shared",)
PATIENCE_S = 300

# A process of its own, because a wrong extension may end it. Arguments: the extension, and the Python file that it must
# do the same as.
LOAD = """
import sys
from importlib.machinery import ExtensionFileLoader, SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader

def load(loader):
    module = module_from_spec(spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module

name = sys.argv[1].rpartition("/")[2].partition(".")[0]
compiled = load(ExtensionFileLoader(name, sys.argv[1]))
reference = load(SourceFileLoader("reference", sys.argv[2]))
"""

CHECK_HASHES = """
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

CHECK_LINES = """
sums = ["0a" * 32, "f9" * 32, "0123456789abcdef" * 4]
right = f"D 755 {sums[0]} 3 ./\\nF 644 {sums[1]} 0 ./a b\\nF 4 {sums[2]} {2**63} ./\u00e9\\n".encode()
texts = [right, b"", b"\\n"] + [right[:at] + right[at + 1 :] for at in range(len(right))]
for new in (b"0", b" ", b"\\n", b"g", b"\\xff"):
    texts += [right[:at] + new + right[at + 1 :] for at in range(len(right))]
for last in ("", "./", "./a", "~"):
    for text in texts:
        lines = reference.columns(text, last)
        if compiled.columns(text, last) != lines:
            sys.exit(f"it reads lines wrongly: {text}")
        found = compiled.records(text, last, 2**62, True)
        if lines:
            rows = [row for row in zip(*lines) if row[0] == "F"]
            records = [bytes.fromhex(row[2]) + min(int(row[3]), 2**62).to_bytes(8, "big") for row in rows]
            lines = b"".join(records), lines[4][-1]
        if found != lines:
            sys.exit(f"it makes wrong records: {text}")
"""

CHECK_FILES = """
import os
from array import array
from tempfile import TemporaryDirectory

def length(path):
    try:
        found = reference.status_beneath(root, path)
    except OSError:
        return compiled.ASK
    if found is None:
        return compiled.ABSENT
    return found.st_size if found.st_mode & 0o170000 == 0o100000 else compiled.NO_FILE

with TemporaryDirectory() as path:
    root = os.open(path, reference.FOLDER)
    os.mkdir(f"{path}/a")
    data = [b"12345678", b"", b"x" * 70000]
    folders = ["a/b", "c/d", "a/b"]
    names = ["one", "two", "three"]
    made = compiled.create_many([root] * 3, folders, 0o755, [f".{name}" for name in names], data, 0o644)
    if len(made) != 3 or made[1] < 0 or made[2] >= 0:
        sys.exit(f"it writes wrongly: {made}")
    made[2] = ~made[2]
    if compiled.rename_many(made, [f".{name}" for name in names], names, True) != 3:
        sys.exit("it renames wrongly")
    for folder, name, expected in zip(folders, names, data):
        with open(f"{path}/{folder}/{name}", "rb") as file:
            if file.read() != expected:
                sys.exit(f"it writes wrong bytes into {folder}/{name}")
    if compiled.write_many([root], ["four"], [b"4"], [0o751]) != 1 or os.stat(f"{path}/four").st_mode != 0o100751:
        sys.exit("it sets wrong permissions")
    os.symlink("b", f"{path}/a/link")
    checked = compiled.check_many(root, ["four", "four", "a", "none", ".."], [0o751, 0o750, 0o751, 0, 0])
    if checked != bytes([0, 1, 1, 1, 2]):
        sys.exit("it checks permissions wrongly")
    os.symlink("one", f"{path}/a/b/link")
    os.mkfifo(f"{path}/fifo")
    paths = [f"{folder}/{name}" for folder, name in zip(folders, names)]
    paths += ["four", "a", "a/b/link", "a/link/one", "fifo", "none", "", "a/b/one/none", "a//b/../b/one"]
    paths += ["..", f"../{os.path.basename(path)}/four", f"{path}/four"]
    # Where this kernel has no openat2(2), these functions are not used.
    if reference.has_openat2():
        for size in (0, 7, 8, 9, 65536):
            read = compiled.read_many(root, paths, [size] * len(paths), False)
            if read != [reference.read_beneath(root, path, size + 1) for path in paths]:
                sys.exit(f"it reads wrongly: {read}")
        if compiled.read_many(root, paths[:5], [8] * 5, True) != [b"12345678", b"", None, b"4", None]:
            sys.exit("it reads whole files wrongly")
        if list(array("q", compiled.lengths(root, paths))) != list(map(length, paths)):
            sys.exit("it finds wrong lengths")
    os.close(root)
"""


class Extension(NamedTuple):
    """A C file, the Python file that it must do the same as, and the program that checks that."""

    source: Path
    reference: Path
    check: str

    @property
    def installed(self) -> Path:
        """Where the extension is, below the root of the repository."""
        return self.source.with_suffix(".abi3.so")


EXTENSIONS = [
    Extension(
        Path("snapferry/stores/treehash/_blake3.c"),
        Path("snapferry/stores/treehash/reference.py"),
        LOAD + CHECK_HASHES,
    ),
    Extension(
        Path("snapferry/stores/manifest/_lines.c"),
        Path("snapferry/stores/manifest/plain_lines.py"),
        LOAD + CHECK_LINES,
    ),
    Extension(
        Path("snapferry/stores/backends/directory/native/_files.c"),
        Path("snapferry/stores/backends/directory/paths/beneath.py"),
        LOAD + CHECK_FILES,
    ),
]
if not sys.platform.startswith("linux"):
    # This one needs openat2(2).
    del EXTENSIONS[-1:]


class NotCompiledError(Exception):
    """The reason why there are no extensions."""


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


def build(root: Path, folder: Path) -> dict[Path, Path]:
    """Compile the extensions into *folder*, check them, and return where each belongs -> its path."""
    found = {}
    include = f"-I{sysconfig.get_path('include')}"
    for extension in EXTENSIONS:
        made = folder / extension.installed.name
        finished(*compiler(), *FLAGS, *LINK, include, root / extension.source, "-o", made)
        finished(sys.executable, "-B", "-c", extension.check, made, root / extension.reference)
        found[extension.installed] = made
    return found


def tag() -> str:
    """Return the tag of a wheel with extensions: this platform, Python 3.11 and later."""
    platforms = list(platform_tags())
    return f"cp311-abi3-{next((name for name in platforms if name.startswith('linux_')), platforms[0])}"


class ExtensionHook(BuildHookInterface[Any]):
    """What hatchling calls before and after it makes a wheel."""

    _folder: TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the extensions. *version* is "editable" for an editable install."""
        root = Path(self.root)
        is_editable = version == "editable"
        # On the file system of the sources, so that the extensions can be renamed into place.
        parent = (root / EXTENSIONS[0].source).parent if is_editable else None
        self._folder = TemporaryDirectory(prefix=".build-", dir=parent)
        made = self._made(root, Path(self._folder.name))
        for installed in [extension.installed for extension in EXTENSIONS] if is_editable else []:
            # Processes that have loaded an old one keep it.
            if installed in made:
                made[installed].replace(root / installed)
            else:
                (root / installed).unlink(missing_ok=True)
        if made and not is_editable:
            build_data["force_include"] |= {
                str(path): installed.as_posix() for installed, path in made.items()
            }
            build_data["pure_python"] = False
            build_data["tag"] = tag()

    def _made(self, root: Path, folder: Path) -> dict[Path, Path]:
        """Return the compiled extensions, as `build` does. If they were asked for and missing, print the reason."""
        if os.environ.get("SNAPFERRY_PURE", "0") not in {"", "0"}:
            return {}
        try:
            return build(root, folder)
        except NotCompiledError as reason:
            self.app.display_warning(f"snapferry is built without its compiled extensions: {reason}")
            return {}

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what is not part of the wheel."""
        if self._folder is not None:
            self._folder.cleanup()
