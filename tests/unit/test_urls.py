"""Store URLs: what is one, what is none, and what is never shown."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from snapferry.stores.address import EMPTY_ADDRESS
from snapferry.stores.backends.directory.backend import DirectoryBackend
from snapferry.stores.errors import InvalidStoreURL, StoreNotFound
from snapferry.stores.opening import open_backend, open_store
from snapferry.stores.urls import StoreURL, check_on_server, find_kind, parse_url, redact

FILE = find_kind("file")

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "text",
    [
        "/srv/store",
        "/srv/store/",
        "file:///srv/store",
        "file://localhost/srv/store",
        "file:///srv//./store//",
        "/../srv/store/.",
    ],
)
def test_one_directory_has_many_spellings_and_one_url(text: str) -> None:
    assert FILE is not None
    assert parse_url(text) == StoreURL(FILE, "/srv/store")
    assert str(parse_url(text)) == "file:///srv/store"


def test_two_dots_stay_in_a_path_for_the_kernel_to_resolve() -> None:
    assert str(parse_url("/srv/link/../store/")) == "file:///srv/link/../store"
    assert parse_url("/srv/link/../store") != parse_url("/srv/store")


@pytest.mark.parametrize("path", ["/a b", "/%20", "/a?b", "/a#b", "/ü", "/a@b:c", "/ lead", "/x\u00a0y", "/"])
def test_paths_are_taken_to_the_letter(path: str) -> None:
    assert parse_url(path).location == path
    assert parse_url(f"file://{path}").location == path


@pytest.mark.parametrize(
    ("text", "bucket", "prefix"),
    [
        ("s3://bucket", "bucket", ""),
        ("s3://bucket/", "bucket", ""),
        ("s3://bucket/a/b", "bucket", "a/b"),
        ("s3://bucket//a/b//", "bucket", "a/b"),
        ("s3://bucket/a%20b c#d@e", "bucket", "a%20b c#d@e"),
    ],
)
def test_a_bucket_and_its_prefix(text: str, bucket: str, prefix: str) -> None:
    url = parse_url(text)

    assert (url.scheme, url.location, url.prefix, url.options) == ("s3", bucket, prefix, ())


def test_parameters_are_sorted_decoded_and_empty_ones_dropped() -> None:
    url = parse_url("s3://b/p?region=eu&endpoint_url=https%3A%2F%2Fs3.example%2Fbase%2F&profile=")

    assert url.options == (("endpoint_url", "https://s3.example/base"), ("region", "eu"))
    assert url.option("region") == "eu"
    assert url.option("profile") is None
    assert str(url) == "s3://b/p?endpoint_url=https%3A%2F%2Fs3.example%2Fbase&region=eu"


REFUSED = {
    "": "is not a store URL",
    "srv/store": "is not a store URL",
    "./store": "is not a store URL",
    "~/store": "is not a store URL",
    "gs://bucket": "use file://, s3:// or an absolute path",
    "S3://bucket": "is not a store URL",
    "http://user:hunter2@host/b": "write s3://BUCKET/PREFIX?endpoint_url=http://HOST",
    "https://host": "write s3://BUCKET/PREFIX?endpoint_url=https://HOST",
    "s3:/bucket": "is not a store URL",
    "://": "is not a store URL",
    "file://": "needs an absolute path",
    "file://host/path": "needs an absolute path",
    "file://relative": "needs an absolute path",
    "file://localhost": "needs an absolute path",
    "s3://": "names no bucket",
    "s3:///prefix": "names no bucket",
    "s3://?region=eu": "names no bucket",
    "s3://user:hunter2@bucket": "carries credentials",
    "s3://hunter2@bucket": "carries credentials",
    "s3://user:hun/ter2@bucket/prefix": "carries credentials",
    "s3://user:hun?ter2@bucket/prefix": "carries credentials",
    "s3://b?secret_access_key=hunter2": "carries a secret (secret_access_key)",
    "s3://b?AWS_SESSION_TOKEN=hunter2": "carries a secret (AWS_SESSION_TOKEN)",
    "s3://b?x-amz-signature=hunter2": "carries a secret",
    "s3://b?colour=hunter2": "unknown parameter 'colour'; known: endpoint_url, region, profile",
    "s3://b?endpoint_url=https%3A%2F%2Fuser%3Ahunter2%40host": "carries credentials in its endpoint_url",
    "s3://b?endpoint_url=https%3A%2F%2Fuser%3Ahun%2Fter2%40host": "carries credentials in its endpoint_url",
    "s3://b?endpoint_url=https%3A%2F%2Fhost%3Ftoken%3Dhunter2": "has an endpoint_url with a query or a fragment",
    "s3://b?endpoint_url=https%3A%2F%2Fhost%23hunter2": "has an endpoint_url with a query or a fragment",
    "s3://b?endpoint_url=https://host#hunter2": "has an endpoint_url with a query or a fragment",
    "s3://b?endpoint_url=https://user:hun%23ter2@host": "carries credentials in its endpoint_url",
    "s3://b?endpoint_url=host:9000": "has an endpoint_url that is no http(s) URL",
    "s3://b?endpoint_url=ftp://host": "has an endpoint_url that is no http(s) URL",
    "s3://b?endpoint_url=http://": "has an endpoint_url that is no http(s) URL",
    "s3://b?endpoint_url=http://[": "has an endpoint_url that is no http(s) URL",
    "s3://b?endpoint_url=http://host:port": "has an endpoint_url that is no http(s) URL",
    "s3://b?endpoint_url=http://host:70000": "has an endpoint_url that is no http(s) URL",
    "/srv/\udcff": "is not UTF-8",
    "file:///srv/\ud800": "is not UTF-8",
    "s3://user:hunter2@bucket/\udcff": "is not UTF-8",
    "\udcff": "is not UTF-8",
    "/srv\0store": "has a NUL character",
    "/srv/\u061cstore": "has a control character",
    "s3://arn:aws:s3:eu:" + "\u0661" * 12 + ":accesspoint/x": "is not the ARN",
    "s3://user:hunter2@bucket\0": "has a NUL character",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_url_gets_one_clear_line_without_any_secret(text: str) -> None:
    with pytest.raises(InvalidStoreURL) as raised:
        parse_url(text)

    shown = str(raised.value)
    assert REFUSED[text] in shown
    assert "\n" not in shown
    shown.encode()
    assert not any(piece in shown for piece in ("hunter2", "ter2", "hun/", "hun?"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://bucket/prefix", "s3://bucket/prefix"),
        ("s3://bucket/prefix?token=hunter2", "s3://bucket/prefix"),
        ("s3://bucket/mail@home", "s3://bucket/mail@home"),
        ("https://user:hunter2@host:9000/path", "https://host:9000/path"),
        ("https://user:hun/ter2@host/path", "https://host/path"),
        ("https://hunter2@host", "https://host"),
        ("user:hunter2@host/path", "host/path"),
        ("redis://:hun?ter2@host", "redis://..."),
        ("file:///srv/a:b/c@d", "file:///srv/a:b/c@d"),
        ("/srv/store", "/srv/store"),
        ("", ""),
    ],
)
def test_redacting_leaves_out_what_may_be_a_secret_and_nothing_else(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_defaults_fill_in_what_a_url_does_not_say_itself() -> None:
    url = parse_url("s3://b/p?region=eu")

    filled = url.with_defaults(endpoint_url="https://s3.example/", region="us", profile=None)

    assert filled.options == (("endpoint_url", "https://s3.example"), ("region", "eu"))
    assert parse_url("/srv/store").with_defaults(region="us") == parse_url("/srv/store")
    with pytest.raises(InvalidStoreURL, match="no http"):
        url.with_defaults(endpoint_url="nonsense")


def test_the_same_place_is_known_by_links_and_not_by_profile(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to("store")

    assert parse_url(f"{tmp_path}/link").same_place(parse_url(f"file://{tmp_path}/store"))
    assert not parse_url(f"{tmp_path}/store").same_place(parse_url(f"{tmp_path}/store2"))
    assert parse_url("s3://b/p?profile=x").same_place(parse_url("s3://b/p/?profile=y"))
    assert not parse_url("s3://b/p").same_place(parse_url("s3://b/q"))
    assert not parse_url("s3://b?endpoint_url=http://one").same_place(
        parse_url("s3://b?endpoint_url=http://two")
    )
    assert not parse_url("s3://b/p").same_place(parse_url("/b/p"))


def test_opening_a_directory_that_does_not_exist_makes_nothing(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/store")

    assert store.label == f"file://{tmp_path}/store"
    assert isinstance(open_backend(parse_url(f"{tmp_path}/store")), DirectoryBackend)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_to_be_made_is_made_by_no_write(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "manifests"), str(tmp_path / "objects"), create=False)

    with pytest.raises(StoreNotFound, match="is it mounted here"):
        store.put_object(EMPTY_ADDRESS, b"")
    with pytest.raises(StoreNotFound, match="is it mounted here"):
        store.objects_needed([EMPTY_ADDRESS])
    assert list(tmp_path.iterdir()) == []

    store.prepare()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifests", "objects"]
    store.put_object(EMPTY_ADDRESS, b"")
    assert store.has_object(EMPTY_ADDRESS)


def test_split_pools_are_two_backends(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "manifests"), str(tmp_path / "objects"))

    store.put_object(EMPTY_ADDRESS, b"")

    assert store.label == f"file://{tmp_path}/objects"
    assert [path.name for path in tmp_path.iterdir()] == ["objects"]


def test_reading_a_url_and_opening_a_directory_import_no_s3_client() -> None:
    """boto3 takes as long to import as a small sync takes in all."""
    code = (
        "import sys; from snapferry.stores.urls import parse_url; from snapferry.stores.opening import open_store;"
        " parse_url('s3://b?region=eu'); open_store('/tmp/x');"
        " sys.exit(any(name.split('.')[0] in ('boto3', 'botocore', 's3transfer') for name in sys.modules))"
    )

    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


# What is opened and connected to is heard of by an audit hook.
PREPARED = """
import os, sys
from snapferry.stores.opening import prepare

seen = []
sys.addaudithook(lambda event, args: seen.append((event, args)) if event in HEARD else None)

def heard(kind):
    return [str(args[0]) for event, args in seen if event.startswith(kind)]

prepare()
connected, read = heard("socket"), heard("open")
seen.clear()
if os.fork() == 0:
    from snapferry.stores.backends.s3.client.clients import client_for
    client_for(None, None, "http://127.0.0.1:1")
    print(connected, [name for name in read if "service-2" in name] != [], "boto3" in sys.modules)
    print([name for name in heard("open") if ".json" in name])
    sys.stdout.flush()
    os._exit(0)
os.wait()
""".replace("HEARD", repr({"open", "socket.connect", "socket.getaddrinfo"}))


def run_prepared(code: str, tmp_path: Path, **environment: str) -> list[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=clean | {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"} | environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    return done.stdout.splitlines()


def test_what_was_prepared_is_read_once_and_not_by_each_forked_process(tmp_path: Path) -> None:
    assert run_prepared(PREPARED, tmp_path) == ["[] True True", "[]"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_PROFILE", "no such profile"),
        ("AWS_ENDPOINT_URL", "no URL"),
        ("AWS_ENDPOINT_URL_S3", "http://["),
        ("AWS_DATA_PATH", "/dev/null"),
        ("AWS_DEFAULT_REGION", "no region"),
    ],
)
def test_preparing_says_nothing_of_a_bad_configuration(tmp_path: Path, name: str, value: str) -> None:
    code = "from snapferry.stores.opening import prepare; prepare(); print('prepared')"

    assert run_prepared(code, tmp_path, **{name: value}) == ["prepared"]


ACCESS_POINT = "arn:aws:s3:eu-west-1:123456789012:accesspoint/name"


@pytest.mark.parametrize(
    ("text", "bucket", "prefix"),
    [
        (f"s3://{ACCESS_POINT}", ACCESS_POINT, ""),
        (f"s3://{ACCESS_POINT}/a/b", ACCESS_POINT, "a/b"),
        (f"s3://{ACCESS_POINT}/a?region=eu-west-1", ACCESS_POINT, "a"),
        (
            "s3://arn:aws-cn:s3-outposts:cn-north-1:123456789012:outpost/op-1/accesspoint/n/p",
            "arn:aws-cn:s3-outposts:cn-north-1:123456789012:outpost/op-1/accesspoint/n",
            "p",
        ),
    ],
)
def test_the_arn_of_an_access_point_is_a_bucket(text: str, bucket: str, prefix: str) -> None:
    url = parse_url(text)

    assert (url.location, url.prefix) == (bucket, prefix)
    assert parse_url(str(url)) == url


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("storage_class=standard", "storage_class"),
        ("storage_class=GLACIER", "read at once"),
        ("storage_class=A%0d%0aB", "storage_class"),
        ("sse=none", "sse must be"),
        ("sse_kms_key_id=abc", "needs sse=aws:kms"),
        ("sse=AES256&sse_kms_key_id=abc", "needs sse=aws:kms"),
        ("sse=aws:kms&sse_kms_key_id=a%20b", "sse_kms_key_id"),
        ("acl=public-read", "acl must be"),
        ("request_payer=me", "request_payer must be"),
        ("tags=a", "tags"),
        ("tags=a%3Db%2Ca%3Dc", "different"),
        ("tags=%3Db", "tags"),
        ("tags=a%3Db%0d%0aX:1", "tags"),
        ("tags=" + "%2C".join(f"k{n}%3Dv" for n in range(11)), "up to 10"),
        ("unsigned=yes", "unsigned must be"),
        ("unsigned=true&profile=p", "both profile and unsigned"),
        ("addressing_style=host", "addressing_style must be"),
        ("read_back=no", "read_back must be"),
    ],
)
def test_values_of_parameters_are_checked(query: str, said: str) -> None:
    with pytest.raises(InvalidStoreURL, match=said):
        parse_url(f"s3://b/p?{query}")


def test_a_profile_of_the_environment_gives_way_to_unsigned_requests() -> None:
    url = parse_url("s3://b?unsigned=true").with_defaults(profile="p", region="r")

    assert dict(url.options) == {"unsigned": "true", "region": "r"}


@pytest.mark.parametrize(
    ("source", "destination", "differ"),
    [
        ("s3://a/x", "s3://b", ""),
        ("s3://a/x?profile=p&region=r", "s3://a/y?region=r&profile=p&storage_class=STANDARD_IA", ""),
        ("s3://a?endpoint_url=http://h:1", "s3://b?endpoint_url=http://h:2", "endpoint_url"),
        ("s3://a", "s3://b?endpoint_url=http://h:2&region=r", "endpoint_url and region"),
        ("s3://a?profile=p", "s3://b?profile=q", "profile"),
        ("s3://a?unsigned=true", "s3://b", "unsigned"),
        ("s3://a?request_payer=requester", "s3://b", "request_payer"),
        ("/srv/a", "s3://b", "one of them is not an S3 store"),
        ("s3://a", "/srv/b", "only servers of S3 stores"),
        ("/srv/a", "/srv/b", "only servers of S3 stores"),
    ],
)
def test_which_stores_may_be_at_one_server_is_known_by_their_urls(
    source: str, destination: str, differ: str
) -> None:
    if not differ:
        check_on_server(parse_url(source), parse_url(destination))
        return
    with pytest.raises(InvalidStoreURL, match=differ):
        check_on_server(parse_url(source), parse_url(destination))
