"""
Build the documentation as a website that needs no network: build.py [DIRECTORY]; the default is build/site.

A broken link, a missing heading, or a page that the navigation does not have is an error (exit code 1).

The documents themselves are written for any host of code: plain Markdown, with links to files of the repository. This
script copies them, changes their links into those of the site, and runs Sphinx:

- docs/README.md is the first page. Its lists are the navigation: a heading is a part, the link of an item is a page.
- README.md and CHANGELOG.md become pages beside those of docs/.
- Other files and folders that a page links to, such as docker-compose.yml, are shown by pages of their own.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from os.path import relpath
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
INDEX = "docs/README.md"

# Pages that are not in docs/, and their names in the site.
OUTSIDE = {"README.md": "overview", "CHANGELOG.md": "changelog"}
IMAGES = {".png", ".svg"}
LANGUAGES = {
    ".json": "json",
    ".py": "python",
    ".sh": "bash",
    ".toml": "toml",
    ".yaml": "yaml",
    ".yml": "yaml",
}

_code = re.compile(r"^```.*?^```|^(?: {4}[^\n]*\n)+|`[^`]*`", re.MULTILINE | re.DOTALL)
_link = re.compile(r"\]\(([^)\s]+)\)")
_item = re.compile(r"^- \[([^\]]+)\]\(([^)\s#]+)\)", re.MULTILINE)


def page_files() -> list[str]:
    """Return the paths of all pages, relative to the repository."""
    pages = [*(ROOT / "docs").rglob("*.md"), *(ROOT / name for name in OUTSIDE)]
    return sorted(page.relative_to(ROOT).as_posix() for page in pages)


def page_name(path: str) -> str:
    """Return the name in the site of the page at *path*."""
    if path in OUTSIDE:
        return OUTSIDE[path]
    name = path.removeprefix("docs/").removesuffix(".md")
    return str(PurePosixPath(name).with_name("index")) if PurePosixPath(name).name == "README" else name


def links(text: str) -> Iterator[re.Match[str]]:
    """Yield the links of *text*, with their targets as group 1. What looks like a link in code is none."""
    yield from _link.finditer(_code.sub(lambda code: "\0" * len(code[0]), text))


def targets(path: str, text: str) -> Iterator[str]:
    """Yield the files and folders that *text*, the page at *path*, links to, relative to the repository."""
    yield from (target for link in links(text) if (target := _target(path, link[1])))


def navigation(text: str) -> dict[str, list[tuple[str, str]]]:
    """Return the navigation that *text*, the index, lists: for each part, titles and paths of its pages."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    return {
        part: [(title, found) for title, link in _item.findall(body) if (found := _target(INDEX, link))]
        for part, body in zip(parts[::2], parts[1::2], strict=True)
    }


def children(path: str, text: str) -> list[str]:
    """Return the pages of its folder that *text*, the README.md of a folder below docs/, links to."""
    folder = str(PurePosixPath(path).parent)
    found = (target for target in targets(path, text) if target.endswith(".md"))
    return list(
        dict.fromkeys(target for target in found if target.startswith(f"{folder}/") and target != path)
    )


def _target(path: str, link: str) -> str | None:
    """Return what *link* of the page at *path* leads to, relative to the repository; None if outside of it."""
    name = link.partition("#")[0]
    if not name or re.match(r"[a-z]+:", name):
        return None
    return relpath(PurePosixPath(path).parent / name, ".")


class Stage:
    """The sources of the site, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shown: set[str] = set()

    def fill(self) -> None:
        """Write all pages, and those for the files that they link to."""
        for path in page_files():
            text = (ROOT / path).read_text()
            made = self.with_links_of_the_site(path, text) + "".join(_contents(path, text))
            self._write(f"{page_name(path)}.md", made)
        for target in (ROOT / "docs").rglob("*"):
            if target.suffix in IMAGES:
                self._copy(target, target.relative_to(ROOT / "docs").as_posix())

    def with_links_of_the_site(self, path: str, text: str) -> str:
        """Return *text*, the page at *path*, with links that lead to the same places in the site."""
        here = PurePosixPath(page_name(path)).parent
        made, end = [], 0
        for link in links(text):
            if target := _target(path, link[1]):
                anchor = "".join(link[1].partition("#")[1:])
                made += [text[end : link.start(1)], relpath(self._place(target), here), anchor]
                end = link.end(1)
        return "".join([*made, text[end:]])

    def _place(self, target: str) -> str:
        """Return the place in the site of a file or folder of the repository."""
        if target.endswith(".md") and (ROOT / target).is_file():
            return f"{page_name(target)}.md"
        if PurePosixPath(target).suffix in IMAGES:
            return target.removeprefix("docs/")
        self._show(target)
        return f"files/{target}/index.md" if (ROOT / target).is_dir() else f"files/{target}.md"

    def _show(self, target: str) -> None:
        """Write the page that shows a file or folder. A target that does not exist is a link that Sphinx reports."""
        path = ROOT / target
        if target in self._shown or not path.exists():
            return
        self._shown.add(target)
        if path.is_dir():
            files = sorted(
                file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts
            )
            names = [file.relative_to(path).as_posix() for file in files]
            for name in names:
                self._show(f"{target}/{name}")
            items = "".join(f"- [`{name}`]({name}.md)\n" for name in names)
            self._write(f"files/{target}/index.md", f"---\norphan: true\n---\n# `{target}`\n\n{items}")
            return
        text = path.read_text()
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
        code = f"{fence}{LANGUAGES.get(path.suffix, 'text')}\n{text.rstrip()}\n{fence}\n"
        raw = f'<a href="{path.name}" download>Download this file</a>'
        self._write(f"files/{target}.md", f"---\norphan: true\n---\n# `{target}`\n\n{raw}\n\n{code}")
        self._copy(path, f"raw/files/{target}")

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def _copy(self, source: Path, name: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, path)


def _contents(path: str, text: str) -> Iterator[str]:
    """Yield the tables of contents that tell Sphinx which pages are below the page at *path*."""
    if path == INDEX:
        for part, pages in navigation(text).items():
            lines = "".join(f"{title} <{page_name(page)}>\n" for title, page in pages)
            yield f"\n```{{toctree}}\n:hidden:\n:caption: {part}\n\n{lines}```\n"
    elif PurePosixPath(path).name == "README.md" and path not in OUTSIDE:
        lines = "".join(f"/{page_name(page)}\n" for page in children(path, text))
        yield f"\n```{{toctree}}\n:hidden:\n\n{lines}```\n"


def main(output: Path) -> int:
    """Build the site into *output*; return the exit code."""
    with tempfile.TemporaryDirectory(prefix="snapferry-site-") as work:
        Stage(Path(work, "source")).fill()
        shutil.rmtree(output, ignore_errors=True)
        command = [sys.executable, "-m", "sphinx", "--builder", "html"]
        options = ["--fail-on-warning", "--quiet", "--doctree-dir", f"{work}/doctrees"]
        config = ["--conf-dir", str(Path(__file__).parent), "--define", f"html_extra_path={work}/source/raw"]
        return subprocess.run(
            [*command, *options, *config, f"{work}/source", str(output)], check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build/site").resolve()))
