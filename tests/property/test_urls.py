"""Laws of store URLs: reading is idempotent, and secrets are neither kept nor shown."""

from __future__ import annotations

import re
import string
from urllib.parse import urlencode

from hypothesis import assume, example, given
from hypothesis import strategies as st

from snapferry.stores.errors import InvalidStoreURL
from snapferry.stores.urls import parse_url, redact
from tests.property.strategies import quick, thorough, url_parts

# The path of a directory, taken to the letter: slashes in any number, dots, spaces, a query that is none.
file_urls = st.builds(
    lambda head, parts, tail: head + "/" + "/".join(parts) + tail,
    st.sampled_from(["", "file://", "file://localhost"]),
    st.lists(st.one_of(url_parts, st.sampled_from(["", ".", "..", "a?b", "x@y", "c:d"])), max_size=4),
    st.sampled_from(["", "/", "//"]),
)

# s3://bucket/prefix?options: an endpoint is an http(s) URL without credentials, the rest is free text.
buckets = st.text(string.ascii_lowercase + string.digits + "-.", min_size=1, max_size=12).filter(
    lambda name: name not in {".", ".."}
)
endpoints = st.builds(
    lambda scheme, host, port, path: f"{scheme}://{host}{port}{path}",
    st.sampled_from(["http", "https"]),
    st.sampled_from(["s3.example", "127.0.0.1", "[::1]", "HOST"]),
    st.sampled_from(["", ":9000"]),
    st.sampled_from(["", "/", "//", "/base", "/base/"]),
)
options = st.fixed_dictionaries(
    {},
    optional={
        "endpoint_url": st.one_of(st.just(""), endpoints),
        "region": st.text(string.ascii_lowercase + string.digits + "-", max_size=6),
        "profile": st.text(st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp")), max_size=6),
    },
)
s3_urls = st.builds(
    lambda bucket, parts, query: (
        f"s3://{bucket}/{'/'.join(parts)}" + (f"?{urlencode(query)}" if query else "")
    ),
    buckets,
    # Slashes at the ends of a prefix mean nothing.
    st.builds(
        lambda parts, head, tail: [*head, *parts, *tail],
        st.lists(url_parts.filter(lambda part: part not in {".", ".."}), max_size=3),
        st.sampled_from([[], [""]]),
        st.sampled_from([[], ["", ""]]),
    ),
    options,
)


@thorough
@given(st.one_of(file_urls, s3_urls))
@example("s3://bucket?region=eu-1")
@example("//srv//store/")
@example("file:///a?b#c")
def test_a_url_that_was_read_and_written_reads_the_same(text: str) -> None:
    url = parse_url(text)

    assert parse_url(str(url)) == url
    assert str(parse_url(str(url))) == str(url)
    assert parse_url(str(url)).same_place(url)


# Anything that resembles a URL, or does not.
texts = st.builds(
    "".join,
    st.lists(
        st.one_of(
            st.sampled_from(
                ["s3://", "file://", "/", "?", "&", "=", "@", ":", "endpoint_url", "http://", "[", "]"]
            ),
            st.sampled_from(
                ["region=", "%00", "%2F", "://", "gs://", "\0", "\n", " ", "localhost", "#", ":99999"]
            ),
            st.text(max_size=4),
        ),
        max_size=9,
    ),
)


@thorough
@given(texts)
@example("s3://b?endpoint_url=http://[")
@example("s3://b?endpoint_url=http://h:port")
def test_any_text_is_a_url_or_an_invalid_one_and_nothing_else_happens(text: str) -> None:
    try:
        url = parse_url(text)
    except InvalidStoreURL:
        return
    if not any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        assert parse_url(str(url)) == url


# Secrets are made of capitals and of all that a URL may trip over; no capital is anywhere else in the URL.
secrets = st.text(string.ascii_uppercase + "/?@:+=%&", min_size=8, max_size=20).filter(
    lambda secret: any(character.isupper() for character in secret)
)
with_user = st.builds(
    lambda scheme, user, secret, rest: f"{scheme}{user}:{secret}@{rest}",
    st.sampled_from(["s3://", "https://", "redis://", "file://", "gs://", ""]),
    st.sampled_from(["", "user", "akia123"]),
    secrets,
    st.sampled_from(
        ["bucket", "bucket/prefix", "host:9000/x", "bucket/a@b", "bucket?region=eu", "bucket?x=a@b"]
    ),
)
with_query = st.builds(
    lambda place, name, secret: f"s3://{place}?region=eu&{urlencode({name: secret})}",
    st.sampled_from(["bucket", "bucket/prefix", "bucket/x@y"]),
    st.sampled_from(
        ["secret", "aws_secret_access_key", "session_token", "password", "x-amz-signature", "other"]
    ),
    secrets,
)
with_endpoint = st.builds(
    lambda user, secret: "s3://bucket?" + urlencode({"endpoint_url": f"https://{user}:{secret}@host"}),
    st.sampled_from(["", "user"]),
    secrets,
)


def shows_no_secret(text: str) -> bool:
    return not any(character in string.ascii_uppercase for character in text)


@thorough
@given(st.one_of(with_user, with_query, with_endpoint))
@example("s3://user:AB/CDEFGH@bucket/prefix")
@example("s3://user:AB?CDEFGH@bucket/prefix")
@example("user:ABCDEFGH@bucket")
def test_redacting_shows_nothing_of_a_secret(text: str) -> None:
    assert shows_no_secret(redact(text)), redact(text)


@thorough
@given(st.one_of(with_user, with_query, with_endpoint))
@example("s3://user:AB/CDEFGH@bucket/prefix")
@example("s3://bucket?endpoint_url=https%3A%2F%2Fuser%3AAB%2FCDEFGH%40host")
def test_a_url_with_a_secret_is_refused_without_repeating_it(text: str) -> None:
    try:
        url = parse_url(text)
    except InvalidStoreURL as error:
        shown = re.sub(" URL|s3://BUCKET/PREFIX|//HOST", "", str(error))
        assert shows_no_secret(shown), shown
    else:
        raise AssertionError(f"{url} was accepted")


@quick
@given(st.one_of(file_urls, s3_urls))
def test_redacting_leaves_the_place_of_a_url_without_secrets_alone(text: str) -> None:
    url = parse_url(text)
    assume("?" not in url.location)
    place = f"{url.scheme}://{url.location}" + (f"/{url.prefix}" if url.prefix else "")

    assert redact(str(url)) == place
