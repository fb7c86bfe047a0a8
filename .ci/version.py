"""
The version of snapferry, in every file that has it.

    version.py                 print the version
    version.py set VERSION     write VERSION into all files, and name the changes to come by it
    version.py check TAG       exit with 1 unless TAG, such as v1.0.0, is the version of all files and of the changelog
    version.py notes           print the section of the changelog for the version
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = "pyproject.toml"
CHANGELOG = "CHANGELOG.md"
MANIFESTS = "deploy/kubernetes"
EXAMPLES = "docs/json.md"
NOTES = "docs/upgrade.md"

# A version that Python, Semantic Versioning and image tags write alike.
VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
IN_EXAMPLES = r'"version": "|"snapferry (?=[0-9])'
UNRELEASED = "## [Unreleased]\n"
NEXT = "\n## To the next version\n"

# Of a version 0 and of later ones.
BETA, STABLE = "Development Status :: 4 - Beta", "Development Status :: 5 - Production/Stable"


def version(root: Path) -> str:
    """Return the version of the project."""
    found: str = tomllib.loads((root / PROJECT).read_text())["project"]["version"]
    return found


def status(of: str) -> str:
    """Return the classifier that fits a version."""
    return BETA if of.startswith("0.") else STABLE


def manifests(root: Path) -> Iterator[Path]:
    """Yield the manifests that name our image."""
    for path in sorted((root / MANIFESTS).rglob("*.yaml")):
        if re.search(r"image: snapferry:|newTag: ", path.read_text()):
            yield path


def tags(path: Path) -> list[str]:
    """Return the versions of our image in a manifest."""
    return re.findall(r"(?:image: snapferry:|newTag: )(\S+)", path.read_text())


def examples(root: Path) -> list[str]:
    """Return the versions of snapferry in the examples of JSON documents."""
    return re.findall(rf"(?:{IN_EXAMPLES})([0-9.]+)", (root / EXAMPLES).read_text())


def set_version(root: Path, new: str, today: str) -> None:
    """Write *new* into all files. The changes to come become those of *new*, of the date *today*."""
    old = version(root)
    project = (root / PROJECT).read_text()
    project = project.replace(f'\nversion = "{old}"\n', f'\nversion = "{new}"\n', 1)
    (root / PROJECT).write_text(project.replace(f'"{status(old)}"', f'"{status(new)}"', 1))
    for path in manifests(root):
        text = re.sub(r"(image: snapferry:|newTag: )\S+", rf"\g<1>{new}", path.read_text())
        path.write_text(text)
    text = re.sub(rf"({IN_EXAMPLES})[0-9.]+", rf"\g<1>{new}", (root / EXAMPLES).read_text())
    (root / EXAMPLES).write_text(text)
    changelog = (root / CHANGELOG).read_text()
    if f"\n## [{new}]" not in changelog:
        changelog = changelog.replace(UNRELEASED, f"{UNRELEASED}\n## [{new}] - {today}\n", 1)
        (root / CHANGELOG).write_text(changelog)
    notes = (root / NOTES).read_text()
    (root / NOTES).write_text(notes.replace(NEXT, f"\n## To version {new}\n", 1))


def section(root: Path, of: str) -> str:
    """Return what the changelog says of a version, "" if it has no section for it."""
    found = re.search(
        rf"^## \[{re.escape(of)}\][^\n]*\n(.*?)(?=^## \[|\Z)",
        (root / CHANGELOG).read_text(),
        re.MULTILINE | re.DOTALL,
    )
    return found[1].strip() if found else ""


def problems(root: Path, tag: str) -> Iterator[str]:
    """Yield what is wrong with a release of *tag*."""
    now = version(root)
    if tag != f"v{now}":
        yield f"the tag is {tag}, and the version in {PROJECT} is {now}: the tag must be v{now}"
    if f'"{status(now)}"' not in (root / PROJECT).read_text():
        yield f"{PROJECT}: the classifier of version {now} must be {status(now)}"
    for path in manifests(root):
        if set(tags(path)) != {now}:
            yield f"{path.relative_to(root)}: the image must have the tag {now}"
    if set(examples(root)) != {now}:
        yield f"{EXAMPLES}: the examples must have version {now}"
    if not section(root, now):
        yield f"{CHANGELOG}: there is no section [{now}], or it is empty"
    if NEXT in (root / NOTES).read_text():
        yield f"{NOTES}: the heading of the notes must be: To version {now}"
    if section(root, "Unreleased"):
        yield f"{CHANGELOG}: the section [Unreleased] must be empty"


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Run one of the commands; return the exit code."""
    match arguments:
        case []:
            print(version(root))
        case ["set", new] if VERSION.fullmatch(new):
            set_version(root, new, f"{datetime.now(UTC):%Y-%m-%d}")
        case ["check", tag]:
            found = list(problems(root, tag))
            for problem in found:
                print(problem, file=sys.stderr)
            return bool(found)
        case ["notes"]:
            print(section(root, version(root)))
        case _:
            print((__doc__ or "").strip(), file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
