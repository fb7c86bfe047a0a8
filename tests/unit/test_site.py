"""The sources of the site: the navigation has every page, and links lead to the same places as in the repository."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load() -> ModuleType:
    """Return `.ci/site/build.py`, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("site_build", ROOT / ".ci/site/build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


site = load()
INDEX = (ROOT / site.INDEX).read_text()


def below(path: str) -> set[str]:
    """Return the page at *path* and all pages that the navigation has below it."""
    if not path.endswith("/README.md") or path == site.INDEX:
        return {path}
    found = {path}
    for child in site.children(path, (ROOT / path).read_text()):
        found |= below(child)
    return found


def test_the_navigation_has_every_page() -> None:
    listed = [path for pages in site.navigation(INDEX).values() for _, path in pages]
    reached = {site.INDEX}.union(*(below(path) for path in listed))

    assert [path for path in site.page_files() if path not in reached] == []
    assert [path for path in reached if path not in site.page_files()] == []


def test_the_navigation_has_no_page_twice() -> None:
    listed = [path for pages in site.navigation(INDEX).values() for _, path in pages]

    assert sorted(listed) == sorted(set(listed))


def test_every_part_of_the_navigation_has_a_page() -> None:
    assert [part for part, pages in site.navigation(INDEX).items() if not pages] == []


def test_no_two_pages_have_the_same_place() -> None:
    names = [site.page_name(path) for path in site.page_files()]

    assert sorted(names) == sorted(set(names))
    assert all(not name.startswith("files/") for name in names)


def test_a_new_page_is_in_the_navigation_by_one_line() -> None:
    text = (
        "# Documentation\n\n## Use\n\n- [Old](old.md): text with a [link](other.md)\n- [New](deep/new.md)\n"
    )

    assert site.navigation(text) == {"Use": [("Old", "docs/old.md"), ("New", "docs/deep/new.md")]}


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    site.Stage(folder).fill()
    return folder


def test_each_link_between_the_staged_files_leads_to_one(staged: Path) -> None:
    for page in staged.rglob("*.md"):
        for link in site.links(page.read_text()):
            name = link[1].partition("#")[0]
            if name and not re.match("[a-z]+:", name):
                assert (page.parent / name).is_file(), f"{page.relative_to(staged)}: {link[1]}"


@pytest.mark.parametrize(
    ("page", "link", "place"),
    [
        ("docs/a.md", "[x](../CHANGELOG.md#added)", "[x](changelog.md#added)"),
        ("docs/adr/a.md", "[x](../../README.md)", "[x](../overview.md)"),
        ("docs/adr/a.md", "[x](README.md)", "[x](index.md)"),
        ("docs/a.md", "[`x` y](../Makefile)", "[`x` y](files/Makefile.md)"),
        ("docs/a.md", "[x](../deploy/sentinel)", "[x](files/deploy/sentinel/index.md)"),
        ("docs/a.md", "![x](images/soak.svg)", "![x](images/soak.svg)"),
        ("README.md", "![x](docs/images/soak.svg)", "![x](images/soak.svg)"),
        (
            "README.md",
            "[x](docs/run.md#a-b) [y](https://e.org/a.md)",
            "[x](run.md#a-b) [y](https://e.org/a.md)",
        ),
        ("docs/a.md", "[x](#here) `[y](../Makefile)`", "[x](#here) `[y](../Makefile)`"),
        ("docs/a.md", "    [x](../Makefile)\n", "    [x](../Makefile)\n"),
    ],
)
def test_a_link_leads_to_the_same_place_in_the_site(page: str, link: str, place: str, tmp_path: Path) -> None:
    assert site.Stage(tmp_path).with_links_of_the_site(page, link) == place


def test_a_file_that_is_shown_is_whole_and_can_be_downloaded(staged: Path) -> None:
    source = ROOT / "docker-compose.yml"

    assert source.read_text().rstrip() in (staged / "files/docker-compose.yml.md").read_text()
    assert (staged / "raw/files/docker-compose.yml").read_bytes() == source.read_bytes()
