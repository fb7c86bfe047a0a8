"""What a policy allows: places, endpoints, profiles, addresses; and what a process's configuration makes of it."""

from __future__ import annotations

import errno
import json
import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from snapferry.stores.access import STRICT, TRUSTED, AccessPolicy, Named, Right
from snapferry.stores.address import object_key
from snapferry.stores.backends.directory.paths import beneath
from snapferry.stores.errors import AccessDenied, InvalidStoreURL, NotAllowed, StoreError
from snapferry.stores.hashing import digest
from snapferry.stores.network.endpoint import parse_allowed, parse_endpoint
from snapferry.stores.network.ip_policy import IpPolicy
from snapferry.stores.opening import open_backend, open_store
from snapferry.stores.urls import parse_place, parse_url
from snapferry.workers.settings.access import access_policy
from snapferry.workers.settings.environment import InvalidSettings, Settings
from tests.sample import fill, make_store, tree


def places(*texts: str) -> tuple[Any, ...]:
    return tuple(map(parse_place, texts))


def allowed(policy: AccessPolicy, url: str, *rights: Right) -> bool:
    try:
        policy.check(parse_url(url), *(rights or (Right.READ,)))
    except NotAllowed:
        return False
    return True


@pytest.mark.parametrize(
    ("entry", "url", "fits"),
    [
        ("s3://bucket/pre", "s3://bucket/pre", True),
        ("s3://bucket/pre", "s3://bucket/pre/fix/", True),
        ("s3://bucket/pre/", "s3://bucket/pre", True),
        ("s3://bucket/pre", "s3://bucket/prefix2", False),
        ("s3://bucket/pre", "s3://bucket", False),
        ("s3://bucket/pre", "s3://bucket2/pre", False),
        ("s3://bucket/pre", "s3://BUCKET/pre", False),
        ("s3://bucket/pre", "s3://bucket/PRE", False),
        ("s3://bucket/pre", "s3://bucket/%70re", False),
        ("s3://bucket/pre", "s3://bucket/pre?region=eu", True),
        ("s3://bucket", "s3://bucket/any", True),
        ("s3://bucket", "s3://bucket.evil", False),
        ("s3://", "s3://any/thing", True),
        ("s3://", "/srv", False),
        ("file:///", "/srv", True),
        ("file:///", "s3://bucket", False),
        ("/srv/store", "file:///srv/store/", True),
        ("/srv/store", "/srv/store/below", True),
        ("/srv/store", "/srv/store-evil", False),
        ("/srv/store", "/srv", False),
        ("/srv/store", "/srv/store/../other", False),
        ("/srv/store", "/srv/Store", False),
    ],
)
def test_a_place_holds_what_is_below_it_by_whole_parts(entry: str, url: str, fits: bool) -> None:
    assert allowed(AccessPolicy(read=places(entry)), url) is fits


def test_each_right_has_places_of_its_own() -> None:
    policy = AccessPolicy(read=places("s3://a"), write=places("s3://b"), delete=places("s3://c"))

    for right, bucket in ((Right.READ, "a"), (Right.WRITE, "b"), (Right.DELETE, "c")):
        assert [one for one in "abc" if allowed(policy, f"s3://{one}", right)] == [bucket]
    assert not allowed(policy, "s3://b", Right.WRITE, Right.DELETE)


def test_links_are_followed_before_a_directory_is_compared(tmp_path: Path) -> None:
    for name in ("allowed/store", "secret"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "allowed/out").symlink_to(tmp_path / "secret")
    (tmp_path / "in").symlink_to(tmp_path / "allowed")
    policy = AccessPolicy(read=places(f"{tmp_path}/in"))

    assert allowed(policy, f"{tmp_path}/allowed/store")
    assert allowed(policy, f"{tmp_path}/in/store")
    assert not allowed(policy, f"{tmp_path}/allowed/out")
    assert not allowed(policy, f"{tmp_path}/in/out/deeper")
    assert not allowed(policy, f"/proc/self/root{tmp_path}/secret")
    opened = open_backend(parse_url(f"{tmp_path}/in/store"), Right.READ, access=policy)
    assert opened.label == f"file://{tmp_path}/allowed/store"


def _changed(path: str) -> str:
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)


def test_what_does_not_resolve_is_not_followed_once_it_was_compared(tmp_path: Path) -> None:
    """Behind a link to itself, `realpath` resolves nothing more; the kernel would follow what is left."""
    secret, inside = tmp_path / "secret", tmp_path / "allowed"
    make_store(secret, {"./a": b"a"})
    inside.mkdir()
    (inside / "loop").symlink_to("loop")
    (inside / "out").symlink_to(secret)
    policy = AccessPolicy(read=places(str(inside)), write=places(str(inside)))

    for path in ("loop/../out", "loop/../loop/../out", "loop/../out/new/store"):
        store = open_store(f"{inside}/{path}", access=policy)
        with pytest.raises(AccessDenied, match="symbolic link"):
            store.list_manifest_ids()
        with pytest.raises(AccessDenied, match="symbolic link"):
            store.put_object(digest(b"b"), b"b")
        with pytest.raises(AccessDenied, match="symbolic link"):
            store.prepare()

    assert not (secret / object_key(digest(b"b"))).exists()
    assert not (secret / "new").exists()


def test_a_path_that_changes_while_it_is_resolved_is_not_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was a link when it was asked for is a directory when its target is read."""
    (tmp_path / "link").symlink_to(tmp_path)
    url = parse_url(f"{tmp_path}/link")
    monkeypatch.setattr(os, "readlink", _changed)

    with pytest.raises(NotAllowed, match="does not resolve"):
        AccessPolicy(read=places("/srv")).check(url, Right.READ)
    assert not url.same_place(parse_url("/srv"))


@pytest.mark.parametrize("one_call", [True, False])
@pytest.mark.parametrize("store", ["", "store", "not/there"])
def test_a_path_that_turns_into_a_link_when_it_was_compared_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str, one_call: bool
) -> None:
    if not one_call:
        monkeypatch.setattr(beneath, "_openat2", None)
    secret, inside = tmp_path / "secret", tmp_path / "allowed"
    make_store(secret, {"./a": b"a"})
    make_store(secret / "store", {"./a": b"a"})
    before = tree(secret)
    make_store(inside / "mine" / "store", {"./a": b"a"})
    policy = AccessPolicy(read=places(str(inside)), write=places(str(inside)))
    opened = [open_store(f"{inside}/mine/{store}", access=policy) for _ in range(3)]
    (inside / "mine").rename(inside / "moved")
    (inside / "mine").symlink_to(secret)

    def prepare_and_put() -> None:
        opened[2].prepare()
        opened[2].put_object(digest(b"b"), b"b")

    for ask in (
        lambda: list(opened[0].list_manifest_ids()),
        lambda: opened[1].put_object(digest(b"b"), b"b"),
        prepare_and_put,
    ):
        with pytest.raises(StoreError):
            ask()

    assert tree(secret) == before
    assert not (secret / "not").exists()


@pytest.mark.parametrize("one_call", [True, False])
def test_directories_below_an_allowed_one_are_made_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_call: bool
) -> None:
    if not one_call:
        monkeypatch.setattr(beneath, "_openat2", None)
    (tmp_path / "disk").mkdir()
    (tmp_path / "srv").symlink_to(tmp_path / "disk")
    policy = AccessPolicy(read=places(f"{tmp_path}/srv"), write=places(f"{tmp_path}/srv"))

    snapshot = fill(open_store(f"{tmp_path}/srv/new/store", access=policy), {"./a": b"a"})

    assert open_store(f"{tmp_path}/disk/new/store", access=policy).list_manifest_ids() == [snapshot]


@pytest.mark.parametrize("right", [Right.READ, Right.WRITE])
def test_without_configuration_any_place_is_allowed_and_nobody_elses_credentials(right: Right) -> None:
    assert allowed(STRICT, "/srv/store", right)
    assert allowed(STRICT, "s3://bucket/prefix?region=eu", right)
    assert not allowed(STRICT, "s3://bucket?endpoint_url=https://s3.example", right)
    assert not allowed(STRICT, "s3://bucket?endpoint_url=http://127.0.0.1:9000", right)
    assert not allowed(STRICT, "s3://bucket?profile=other", right)
    assert not allowed(STRICT, "/srv/store", Right.DELETE)
    assert STRICT.unlimited == ("read", "write")


@pytest.mark.parametrize(
    ("entry", "url", "fits"),
    [
        ("https://s3.example", "https://s3.example", True),
        ("https://s3.example", "HTTPS://S3.Example.:443/", True),
        ("https://s3.example", "https://s3.example:0443/", True),
        ("https://s3.example", "https://s3.example:8443", False),
        ("https://s3.example", "http://s3.example", False),
        ("https://s3.example", "https://s3.example.evil", False),
        ("https://s3.example", "https://evil.s3.example", False),
        ("https://s3.example/tenant", "https://s3.example/tenant/a", True),
        ("https://s3.example/tenant", "https://s3.example/tenant2", False),
        ("https://s3.example/tenant", "https://s3.example", False),
        ("http://minio.lan:9000", "http://minio.lan:9000", True),
        ("http://minio.lan:9000", "https://minio.lan:9000", False),
        ("https://*", "https://any.where:1", True),
        ("https://*", "http://any.where", False),
        ("http://[::1]:9000", "http://[0:0:0:0:0:0:0:1]:9000", True),
        ("http://127.0.0.1:9000", "http://[::ffff:127.0.0.1]:9000", True),
        ("http://127.0.0.1:9000", "http://localhost:9000", False),
    ],
)
def test_an_endpoint_is_compared_in_its_one_spelling(entry: str, url: str, fits: bool) -> None:
    policy = AccessPolicy(endpoints=(parse_allowed(entry),))

    assert allowed(policy, f"s3://bucket?endpoint_url={url}") is fits


TRICKS = [
    "https://good.example\\@evil.example",
    "https://good.example@evil.example",
    "https://user:pass@evil.example",
    "https://good.example#@evil.example",
    "https://good.example?@evil.example",
    "https://evil%2eexample",
    "https://good.example%00.evil.example",
    "https://good.example .evil.example",
    "https://g\u043e\u043ed.example",
    "https://\u217cocalhost",
    "https://good..example",
    "https://.example",
    "https://-good.example",
    "http://2130706433",
    "http://0x7f000001",
    "http://0x7f.1",
    "http://0177.0.0.1",
    "http://127.1",
    "http://127.0.0.01",
    "http://0xA9FEA9FE",
    "http://[fe80::1%25eth0]",
    "http://[::1",
    "http://::1",
    "http://[::ffff:7f00:1]x",
    "http://[127.0.0.1]",
    "https://s3.example:",
    "https://s3.example:0",
    "https://s3.example:99999",
    "https://s3.example:+443",
    "https://s3.example:\uff14\uff14\uff13",
    "http\u017f://s3.example",
    "http\u017f://s3.example:443",
    "https://s3.e\u212aample",
    "https://s3.example/../other",
    "https://s3.example/a//b",
    "https://s3.example/./a",
    "https://s3.example/%2e%2e/b",
    "https:/s3.example",
    "https:s3.example",
    "//s3.example",
    "gopher://s3.example",
    "https://" + "a" * 64 + ".example",
    "https://" + "a." * 130 + "example",
]


@pytest.mark.parametrize("endpoint", TRICKS)
def test_an_endpoint_that_could_be_read_in_two_ways_is_none(endpoint: str) -> None:
    with pytest.raises(InvalidStoreURL) as raised:
        parse_url(f"s3://bucket?endpoint_url={quote(endpoint)}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("user", ["user:S3cret", "S3cret", "S3cret:9000", "user:p@S3cret", ":S3cret"])
def test_an_endpoint_with_credentials_is_refused_without_showing_them(user: str) -> None:
    endpoint = f"https://{user}@s3.example"

    with pytest.raises(InvalidSettings) as raised:
        access_policy(Settings.from_environment({"SNAPFERRY_ACCESS_ENDPOINTS": endpoint}), "the worker")

    assert "S3cret" not in str(raised.value)
    assert "carries credentials" in str(raised.value)


METADATA = [
    "169.254.169.254", "169.254.0.1", "fe80::1", "febf::1", "::ffff:169.254.169.254", "::ffff:a9fe:a9fe",
    "::169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "fd00:ec2::254", "fd00:ec2:0:0:0:0:0:23",
    "fd20:ce::254", "100.100.100.200",
]  # fmt: skip


@pytest.mark.parametrize("address", METADATA)
@pytest.mark.parametrize("policy", [STRICT, TRUSTED, AccessPolicy(endpoints=(parse_allowed("http://*"),))])
def test_link_local_addresses_are_refused_to_everybody(address: str, policy: AccessPolicy) -> None:
    host = f"[{address}]" if ":" in address else address

    assert not allowed(policy, f"s3://bucket?endpoint_url=http://{host}/")
    assert IpPolicy().refuses(address)
    assert not IpPolicy(link_local=True).refuses(address)


@pytest.mark.parametrize(
    ("address", "refused"),
    [("127.0.0.1", False), ("::1", False), ("::ffff:127.0.0.1", False), ("10.0.0.1", True), ("0.0.0.0", True),
     ("::", True), ("2002:7f00:1::", True), ("64:ff9b::7f00:1", True)],
)  # fmt: skip
def test_plain_http_to_this_machine_goes_to_this_machine(address: str, refused: bool) -> None:
    assert bool(IpPolicy(loopback_only=True).refuses(address)) is refused


def test_an_endpoint_and_a_profile_go_together_as_they_were_named() -> None:
    one, two = parse_endpoint("https://one.example"), parse_endpoint("https://two.example")
    policy = AccessPolicy(named=frozenset({Named(one, "a"), Named(two, None), Named(None, "b")}))

    def may(endpoint: str, profile: str) -> bool:
        return allowed(policy, f"s3://bucket?endpoint_url={endpoint}&profile={profile}")

    assert may("https://one.example", "a")
    assert may("https://two.example", "")
    assert may("", "b")
    assert not may("https://one.example", "")
    assert not may("https://two.example", "a")
    assert not may("https://one.example", "b")
    assert not may("", "a")


def test_a_place_with_an_endpoint_brings_it_along_for_itself_alone() -> None:
    policy = AccessPolicy(read=places("s3://a?endpoint_url=https://one.example&profile=p", "s3://b"))

    assert allowed(policy, "s3://a/x?endpoint_url=https://one.example&profile=p")
    assert not allowed(policy, "s3://a?endpoint_url=https://one.example")
    assert not allowed(policy, "s3://a?profile=p")
    assert not allowed(policy, "s3://a")
    assert not allowed(policy, "s3://b?endpoint_url=https://one.example&profile=p")


@pytest.mark.parametrize("more", ["region=eu", "storage_class=STANDARD_IA", "sse=AES256&tags=a=b"])
def test_an_entry_with_other_settings_alone_says_nothing_of_endpoint_and_profile(more: str) -> None:
    named = frozenset({Named(parse_endpoint("https://s3.example"), "p")})
    policy = AccessPolicy(write=places(f"s3://b?{more}"), named=named)

    assert allowed(policy, "s3://b", Right.WRITE)
    assert allowed(policy, "s3://b?endpoint_url=https://s3.example&profile=p", Right.WRITE)
    assert not allowed(policy, "s3://b?endpoint_url=https://s3.example", Right.WRITE)
    assert not allowed(policy, "s3://b?profile=q", Right.WRITE)


def test_a_refused_store_is_not_opened_and_says_who_refuses_and_what_would_allow_it(tmp_path: Path) -> None:
    policy = AccessPolicy(role="the worker on one", read=places("/srv"), write=())

    with pytest.raises(NotAllowed) as raised:
        open_store(str(tmp_path), None, Right.READ, access=policy)
    with pytest.raises(
        NotAllowed, match=r'does not open it.*; add "http://evil.example" to `endpoints` under'
    ):
        open_store("s3://b?endpoint_url=http://evil.example&profile=x")

    assert str(raised.value).startswith(f"file://{tmp_path}: the worker on one does not open it")
    assert f'; add "file://{tmp_path}" to `read` under [access] of its snapferry.toml' in str(raised.value)


OPEN = AccessPolicy()
LIMITED = AccessPolicy(read=(), write=(), endpoints=(parse_allowed("http://*"),))


@pytest.mark.parametrize(
    ("policy", "url", "right"),
    [
        (LIMITED, "file:///srv/a b", Right.READ),
        (LIMITED, "s3://b/x", Right.WRITE),
        (LIMITED, "s3://b/x?endpoint_url=http://h:1&profile=p%26q", Right.WRITE),
        (LIMITED, "tree:///data", Right.READ),
        (OPEN, "tree:///data", Right.READ),
        (OPEN, "tree:///data", Right.WRITE),
        (OPEN, "s3://b?endpoint_url=http://h:1", Right.READ),
        (OPEN, "s3://b?profile=p", Right.READ),
        (OPEN, "s3://b?endpoint_url=http://169.254.169.254", Right.READ),
    ],
)
def test_what_a_refusal_says_to_set_is_what_allows_the_store_and_takes_nothing_away(
    tmp_path: Path, policy: AccessPolicy, url: str, right: Right
) -> None:
    asked = parse_url(url)
    seen = policy
    for _ in range(3):
        try:
            seen.check(asked, right)
            break
        except NotAllowed as error:
            seen = as_told(tmp_path, seen, error.detail)
    assert seen.allows(asked, right)

    for other in ("file:///any", "s3://any"):
        for each in (Right.READ, Right.WRITE):
            assert seen.allows(parse_url(other), each) == policy.allows(parse_url(other), each)


def as_told(tmp_path: Path, policy: AccessPolicy, detail: str) -> AccessPolicy:
    """Return the policy of a configuration file that is changed as *detail* says."""
    document = policy.to_document()
    table = {name: document[name] for name in ("read", "write", "endpoints", "profiles")}
    added = re.search(r'add (".*?(?<!\\)") to `(\w+)` under', detail)
    if added:
        table[added[2]] = [*table[added[2]], json.loads(added[1])]
    lines = [f"{name} = {json.dumps(value)}" for name, value in table.items() if value is not None]
    if not added:
        lines = [line for line in lines if line.partition(" ")[0] not in re.findall(r"`(\w+) = ", detail)]
        lines += re.findall(r"`([\w-]+ = .*?)`", detail)
    return configured(tmp_path, "[access]\n" + "\n".join(lines) + "\n")


def test_a_process_says_which_file_and_variable_limit_it(tmp_path: Path) -> None:
    policy = configured(tmp_path, "[access]\nread = []\n")

    with pytest.raises(NotAllowed) as raised:
        policy.check(parse_url("s3://b"), Right.READ)

    assert f"under [access] of {tmp_path}/snapferry.toml, and restart it" in raised.value.detail


@pytest.mark.parametrize(
    "policy",
    [
        STRICT,
        TRUSTED,
        AccessPolicy(
            "x", places("s3://", "s3://a?profile=p"), places("/srv"), (), (parse_allowed("http://*"),),
            frozenset({"p"}), frozenset({Named(parse_endpoint("http://[::1]"), None), Named(None, "q")}), True,
        ),
    ],
)  # fmt: skip
def test_a_policy_is_handed_to_another_process_whole(policy: AccessPolicy) -> None:
    document = json.loads(json.dumps(policy.to_document()))

    assert AccessPolicy.from_document(document) == policy
    assert document.keys() == {field.name for field in fields(AccessPolicy)}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)


def configured(folder: Path, text: str, **environ: str) -> AccessPolicy:
    path = folder / "snapferry.toml"
    path.write_text(text)
    return access_policy(Settings.from_environment({"SNAPFERRY_CONFIG": str(path), **environ}), "the worker")


STORES = '[stores]\nlive = "s3://live/x?endpoint_url=https://s3.example&profile=p"\nbackup = "file:///srv/backup"\n'
MIRROR = '[[mirror]]\nname = "m"\nfrom = "live"\nto = "backup"\nevery = "6h"\n'


def test_stores_that_the_configuration_names_are_allowed_with_their_endpoint_and_profile(
    tmp_path: Path,
) -> None:
    policy = configured(tmp_path, STORES)

    assert allowed(policy, "s3://live/x?endpoint_url=https://s3.example&profile=p")
    assert not allowed(policy, "s3://live/x?endpoint_url=https://s3.example&profile=q")
    assert not allowed(policy, "/srv/backup", Right.DELETE)
    assert policy.unlimited == ("read", "write")


def test_names_of_stores_are_entries_and_what_is_left_out_beside_another_list_is_nothing(
    tmp_path: Path,
) -> None:
    policy = configured(tmp_path, STORES + '[access]\nread = ["live"]\n')

    assert allowed(policy, "s3://live/x/y?endpoint_url=https://s3.example&profile=p")
    assert not allowed(policy, "/srv/backup")
    assert not allowed(policy, "/srv/backup", Right.WRITE)
    assert policy.unlimited == ()


def test_a_mirror_that_deletes_may_do_so_unless_delete_says_otherwise(tmp_path: Path) -> None:
    deletes = STORES + MIRROR + "delete = true\n"

    assert not allowed(configured(tmp_path, STORES + MIRROR), "/srv/backup", Right.DELETE)
    assert allowed(configured(tmp_path, deletes), "/srv/backup", Right.DELETE)
    assert not allowed(configured(tmp_path, deletes), "/srv/other", Right.DELETE)
    assert not allowed(
        configured(tmp_path, deletes, SNAPFERRY_ACCESS_DELETE="none"), "/srv/backup", Right.DELETE
    )


def test_a_variable_counts_in_place_of_the_list_of_its_name(tmp_path: Path) -> None:
    policy = configured(
        tmp_path,
        STORES + '[access]\nread = ["live"]\nwrite = ["backup"]\nprofiles = ["x"]\n',
        SNAPFERRY_ACCESS_READ="file:///srv  s3://other",
        SNAPFERRY_ACCESS_ENDPOINTS="https://a.example",
    )

    assert [str(place) for place in policy.read or ()] == ["file:///srv", "s3://other"]
    assert allowed(policy, "/srv/backup", Right.WRITE)
    assert allowed(policy, "s3://other?endpoint_url=https://a.example&profile=x")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SNAPFERRY_FROM_ENDPOINT_URL", "http://10.1.2.3:9000"),
        ("SNAPFERRY_TO_ENDPOINT_URL", "http://10.1.2.3:9000"),
        ("SNAPDIR_S3_STORE_ENDPOINT_URL", "http://10.1.2.3:9000/"),
        ("AWS_ENDPOINT_URL", "http://10.1.2.3:9000"),
        ("AWS_ENDPOINT_URL_S3", "http://10.1.2.3:9000"),
    ],
)
def test_endpoints_that_the_environment_names_are_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    policy = access_policy(Settings(), "the worker")

    assert allowed(policy, "s3://b?endpoint_url=http://10.1.2.3:9000")
    assert not allowed(policy, "s3://b?endpoint_url=http://10.1.2.3:9001")
    assert not allowed(policy, "s3://b?endpoint_url=http://10.1.2.3:9000&profile=p")


@pytest.mark.parametrize("name", ["SNAPFERRY_FROM_PROFILE", "SNAPFERRY_TO_PROFILE", "AWS_PROFILE"])
def test_profiles_that_the_environment_names_are_allowed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "backup")

    assert allowed(access_policy(Settings(), "the worker"), "s3://b?profile=backup")
    assert not allowed(access_policy(Settings(), "the worker"), "s3://b?profile=other")


@pytest.mark.parametrize(
    ("text", "environ", "said"),
    [
        ('[access]\nread = ["nowhere"]', {}, "no store is named 'nowhere'"),
        (
            '[access]\nread = ["gs://x"]',
            {},
            "access.read: gs://x: is not a store URL",
        ),
        ('[access]\nreed = ["s3://x"]', {}, "access.reed: unknown key; did you mean 'read'?"),
        ('[access]\nread = "s3://x"', {}, "access.read: "),
        ("", {"SNAPFERRY_ACCESS_WRITE": "relative/path"}, "SNAPFERRY_ACCESS_WRITE"),
        ("", {"SNAPFERRY_ACCESS_ENDPOINTS": "s3.example"}, "'s3.example': it is not http(s)://"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    tmp_path: Path, text: str, environ: dict[str, str], said: str
) -> None:
    with pytest.raises(InvalidSettings) as raised:
        configured(tmp_path, text, **environ)

    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("scheme", ["file", "tree"])
def test_a_place_that_is_replaced_by_a_link_allows_nothing_else(scheme: str, tmp_path: Path) -> None:
    allowed_place, other = tmp_path / "allowed", tmp_path / "other"
    for folder in (allowed_place, other):
        folder.mkdir()
    entry = parse_place(f"{scheme}://{allowed_place}")
    policy = AccessPolicy(read=(entry,))
    assert policy.check(entry, Right.READ) == entry
    allowed_place.rmdir()
    allowed_place.symlink_to(other)
    with pytest.raises(NotAllowed):
        policy.check(entry, Right.READ)
    with pytest.raises(NotAllowed):
        policy.check(parse_place(f"{scheme}://{other}"), Right.READ)


def test_a_place_that_is_a_link_allows_where_it_led_at_the_start(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.mkdir()
    link.symlink_to(target)
    policy = AccessPolicy(write=(parse_place(f"file://{link}"),))
    assert policy.check(parse_place(f"file://{link}/store"), Right.WRITE).location == f"{target}/store"
    assert policy.check(parse_place(f"file://{target}/store"), Right.WRITE).location == f"{target}/store"
