"""The built site: whole, without anything from other hosts, fit for narrow and wide screens, searchable from a disk."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.servers import missing

ROOT = Path(__file__).resolve().parents[2]
WIDTHS = (400, 1600)

pytestmark = pytest.mark.slow


def build(root: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of the repository at *root*."""
    python = ROOT / ".venv-docs/bin/python"
    if not python.exists():
        missing("there is no Sphinx: .ci/setup docs")
    command = [str(python), str(root / ".ci/site/build.py"), str(output)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("site") / "pages"
    ended = build(ROOT, output)
    assert (ended.returncode, ended.stderr) == (0, "")
    return output


class Page(HTMLParser):
    """What a page loads, what it links to, and the places in it that a link can lead to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.places.add(given.get("id", ""))
        if tag == "a":
            self.links.append(given.get("href", "#"))
        elif tag == "link" and given.get("rel") in {
            "stylesheet",
            "icon",
            "preload",
            "prefetch",
            "preconnect",
        }:
            self.loads.append(given["href"])
        elif "src" in given:
            self.loads.append(given["src"])


@pytest.fixture(scope="module")
def pages(built: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in built.rglob("*.html")}


def test_pages_load_nothing_from_other_hosts(built: Path, pages: dict[Path, Page]) -> None:
    loads = {load for page in pages.values() for load in page.loads}
    styles = [
        text
        for sheet in built.rglob("*.css")
        for text in sheet.read_text().split("url(")[1:]
        if "//" in text[:9]
    ]

    assert len(pages) > 80
    assert [load for load in loads if urlsplit(load).netloc] == []
    assert styles == []


def test_every_link_within_the_site_leads_to_a_place(pages: dict[Path, Page]) -> None:
    broken = []
    for path, page in pages.items():
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            found = target.is_file() and (
                not parts.fragment
                or target.suffix != ".html"
                or unquote(parts.fragment) in pages[target].places
            )
            broken += [] if found else [f"{path.name}: {link}"]

    assert broken == []


def test_a_broken_link_a_missing_heading_and_a_page_without_a_place_are_errors(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    root.mkdir()
    for name in (".ci", "docs"):
        shutil.copytree(ROOT / name, root / name)
    for path in ROOT.iterdir():
        if not (root / path.name).exists() and path.name != ".git":
            (root / path.name).symlink_to(path)
    wrong = {"broken": "[x](no-such-page.md)", "heading": "[x](run.md#no-such-heading)", "orphan": "Text."}
    for name, text in wrong.items():
        (root / f"docs/{name}.md").write_text(f"# {name}\n\n{text}\n")
    with (root / "docs/README.md").open("a") as index:
        index.write("- [Broken](broken.md)\n- [Heading](heading.md)\n")

    ended = build(root, tmp_path / "pages")
    named = {
        line.split("/source/")[1].split(".md")[0] for line in ended.stderr.splitlines() if "WARNING" in line
    }

    assert (ended.returncode, named) == (1, set(wrong)), ended.stderr


@pytest.fixture
def page(chromium: Any, built: Path) -> Iterator[Any]:
    """A page of a browser; whatever it asks for outside of the site, and each error of a script, fails the test."""
    found: list[str] = []
    context = chromium.new_context(offline=True)
    context.set_default_timeout(240_000)
    tab = context.new_page()

    def on_request(request: Any) -> None:
        if not request.url.startswith((f"file://{built}/", "data:")):
            found.append(request.url)

    def on_console(message: Any) -> None:
        if message.type == "error":
            found.append(message.text)

    tab.on("request", on_request)
    tab.on("console", on_console)
    tab.on("pageerror", lambda error: found.append(str(error)))
    yield tab
    context.close()
    assert found == []


@pytest.mark.parametrize("width", WIDTHS)
def test_pages_fit_the_screen(page: Any, built: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    wide = []
    for path in sorted(built.rglob("*.html")):
        page.goto(f"file://{path}", wait_until="domcontentloaded")
        if page.evaluate("document.documentElement.scrollWidth") > width:
            wide.append(path.relative_to(built).as_posix())

    assert wide == []


@pytest.mark.parametrize("width", WIDTHS)
def test_a_search_finds_a_setting_without_a_server(page: Any, built: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"file://{built}/index.html")
    if width == WIDTHS[0]:
        page.locator(".mobile-header label[for=__navigation]").click()
    page.fill("input[name=q]", "SNAPFERRY_VISIBILITY_TIMEOUT")
    page.press("input[name=q]", "Enter")
    page.locator(".search-summary:not(:empty)", has_text="found").wait_for()
    results = page.locator("ul.search li a")
    first = results.first.text_content()
    results.first.click()

    assert first == "Configure"
    assert page.url.partition("?")[0] == f"file://{built}/configure.html"


def test_the_navigation_leads_to_every_part(page: Any, built: Path) -> None:
    page.set_viewport_size({"width": WIDTHS[1], "height": 900})
    page.goto(f"file://{built}/index.html")
    parts = page.locator(".sidebar-tree .caption").all_text_contents()
    headings = page.locator("article h2").evaluate_all("all => all.map(one => one.firstChild.textContent)")

    assert parts == headings
