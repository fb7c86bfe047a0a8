"""The store that a text of a command line or of a program means: a URL, a path, or a name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snapferry.orchestrator.client.requests import Requests
from snapferry.orchestrator.jobs import tree_url
from snapferry.orchestrator.places.local_path import absolute_path
from snapferry.orchestrator.places.named_store import named_url
from snapferry.stores.access import TRUSTED
from snapferry.stores.errors import InvalidStoreURL
from snapferry.stores.urls import parse_url
from snapferry.workers.messages import StoreRef
from snapferry.workers.settings.environment import InvalidSettings, Settings

WITHOUT_FILE = Settings()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Work in a directory below a home directory, at the end of a link."""
    work = tmp_path / "real" / "work"
    work.mkdir(parents=True)
    (tmp_path / "link").symlink_to(work)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "link")
    return os.path.realpath(work)


@pytest.fixture
def configured(here: str) -> Settings:
    """A configuration with the store *live*, beside a directory *live*."""
    (Path(here) / "live").mkdir()
    file = Path(here) / "snapferry.toml"
    file.write_text('[stores]\nlive = "s3://bucket/live"\n')
    return Settings(config=str(file))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (".", ""), ("./", ""), ("./store", "/store"), ("./store/", "/store"), ("a/b", "/a/b"), (".//a/./b", "/a/b"),
        ("..", "/.."), ("../store", "/../store"), ("./../../x", "/../../x"), ("a/../b", "/a/../b"), ("./a:b", "/a:b"),
        ("a/b:c", "/a/b:c"), ("./a%20b", "/a%20b"), ("./two words", "/two words"), ("./~/x", "/~/x"),
        ("./s3://b", "/s3:/b"), ("./store?x=1#y", "/store?x=1#y"), ("./nightly@", "/nightly@"), ("./é", "/é"),
    ],
)  # fmt: skip
def test_a_relative_path_begins_at_the_working_directory(text: str, wanted: str, here: str) -> None:
    url = parse_url(named_url(WITHOUT_FILE, text))

    assert (url.scheme, url.option("x")) == ("file", None)
    # What is before the first part of the text has no links, and leads where the kernel goes.
    expected = os.path.normpath(here + wanted) if ".." in wanted.split("/")[1:2] else here + wanted
    assert url.location == expected


def test_links_in_the_path_are_not_resolved(here: str) -> None:
    (Path(here) / "elsewhere").symlink_to("/usr")

    assert named_url(WITHOUT_FILE, "./elsewhere/../x") == f"{here}/elsewhere/../x"


def test_at_the_root_a_path_does_not_begin_with_two_slashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")

    assert [absolute_path(text) for text in (".", "..", "./srv", "../../srv/x")] == [
        "/",
        "/",
        "/srv",
        "/srv/x",
    ]


@pytest.mark.parametrize(("text", "wanted"), [("~", ""), ("~/store", "/store"), ("~/a:b/c", "/a:b/c")])
def test_a_tilde_is_the_home_directory(text: str, wanted: str, here: str) -> None:
    assert named_url(WITHOUT_FILE, text) == os.environ["HOME"] + wanted


@pytest.mark.parametrize("home", ["", "relative"])
def test_a_home_that_is_no_directory_is_refused(
    home: str, here: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", home)
    try:
        found = named_url(WITHOUT_FILE, "~/store")
    except InvalidStoreURL:
        return
    assert found.startswith("/")


@pytest.mark.parametrize("text", ["~nobody-of-this-name/x", "~nobody-of-this-name"])
def test_the_home_of_an_unknown_user_is_refused(text: str, here: str) -> None:
    with pytest.raises(InvalidStoreURL, match="~nobody-of-this-name is not known"):
        named_url(WITHOUT_FILE, text)


def test_a_name_wins_over_a_directory_of_the_same_name(configured: Settings, here: str) -> None:
    assert named_url(configured, "live") == "s3://bucket/live"
    assert named_url(configured, "./live") == f"{here}/live"
    assert named_url(configured, "live/") == f"{here}/live/"
    assert named_url(configured, Path("live")) == f"{here}/live"


@pytest.mark.parametrize("text", ["livre", "store"])
def test_a_word_is_never_a_directory(text: str, configured: Settings, here: str) -> None:
    """A misspelled name of a destination must not write to a new directory, nor to one that happens to be there."""
    for _ in range(2):
        for settings in (configured, WITHOUT_FILE):
            with pytest.raises(InvalidStoreURL, match=r"is n(ot|either) a store URL"):
                named_url(settings, text)
        (Path(here) / text).mkdir(exist_ok=True)
    with pytest.raises(InvalidStoreURL, match=f"For a directory, write ./{text}$"):
        named_url(configured, text)


@pytest.mark.parametrize(
    "text", ["s3:/bucket", "s3:bucket/x", "host:/path", "C:/x", "://", "key:secret@host/x", "S3:/b"]
)
def test_a_mistyped_url_is_not_a_directory(text: str, here: str) -> None:
    with pytest.raises(InvalidStoreURL, match="is not a store URL") as caught:
        named_url(WITHOUT_FILE, text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "s3://bucket/./x", "ftp://host/x", "file://relative", "/srv/../store/"])
def test_a_url_and_an_absolute_path_stay(text: str, here: str) -> None:
    assert named_url(WITHOUT_FILE, text) == text


def test_control_characters_of_a_path_are_refused(here: str) -> None:
    for text in ("./a\0b", "./a\nb", "./\u202e"):
        with pytest.raises(InvalidStoreURL):
            parse_url(named_url(WITHOUT_FILE, text))


def test_a_path_of_pathlib_is_a_directory(here: str) -> None:
    assert named_url(WITHOUT_FILE, Path("store")) == f"{here}/store"
    assert named_url(WITHOUT_FILE, Path("s3:/x")) == f"{here}/s3:/x"
    assert named_url(WITHOUT_FILE, Path("/srv/store")) == "/srv/store"


def test_a_program_submits_absolute_paths(here: str) -> None:
    spec = Requests(WITHOUT_FILE, TRUSTED).sync("./a", Path("b"), None, "../pool", None)

    assert spec.source.url == f"file://{here}/a"
    assert spec.source.objects_url == f"file://{os.path.dirname(here)}/pool"
    assert spec.destination.url == f"file://{here}/b"


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("~/tree", "{home}/tree"), ("~", "{home}"), ("tree", "{here}/tree"), ("./~/tree", "{here}/~/tree"),
        ("/~/tree", "/~/tree"), (Path("~/tree"), "{here}/~/tree"),
    ],
)  # fmt: skip
def test_a_program_expands_the_home_directory_of_a_tree_as_that_of_a_store(
    path: str | Path, wanted: str, here: str
) -> None:
    expected = f"tree://{wanted.format(home=os.environ['HOME'], here=here)}"
    requests = Requests(WITHOUT_FILE, TRUSTED)

    assert requests.push(path, "/srv/store", "", (), follow=True).source.url == expected
    pulled = requests.pull("/srv/store", 64 * "a", path, delete=False, linked=False)
    assert pulled.destination.url == expected


def test_the_home_of_an_unknown_user_is_no_tree(here: str) -> None:
    with pytest.raises(InvalidStoreURL, match="~nobody-of-this-name is not known"):
        tree_url("~nobody-of-this-name/x")


def test_without_a_working_directory_only_relative_paths_are_refused(
    here: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = Path(here) / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    assert named_url(WITHOUT_FILE, "/srv/store") == "/srv/store"
    assert tree_url("/srv/tree") == "tree:///srv/tree"
    for ask in (lambda: named_url(WITHOUT_FILE, "./store"), lambda: tree_url("tree")):
        with pytest.raises(InvalidStoreURL, match="the working directory: does not exist any more"):
            ask()
    monkeypatch.chdir(here)


def test_messages_and_the_file_need_absolute_paths(here: str) -> None:
    file = Path(here) / "snapferry.toml"
    for text in ("./store", "~/store", "a/b"):
        with pytest.raises(InvalidStoreURL, match="an absolute path"):
            _ = StoreRef(url=text).parsed
        file.write_text(f'[stores]\nlive = "{text}"\n')
        with pytest.raises(InvalidSettings, match=r"line 2.*an absolute path"):
            named_url(Settings(config=str(file)), "live")
