"""What is redacted of a text that is too long, and at the place where it is cut."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapferry.workers.telemetry import redaction
from snapferry.workers.telemetry.redaction import HIDDEN, LONGEST, Redaction
from tests.regex_steps import steps

SECRET = "wJalrXUtnFEMI K7MDENG+bPxRfiCY"
KEY = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\n-----END KEY-----"


def longest_part_of(secret: str, text: str) -> int:
    """Return the length of the longest beginning or end of *secret* in *text*."""
    return max(
        length
        for length in range(len(secret) + 1)
        if secret[:length] in text or (length and secret[-length:] in text)
    )


@pytest.mark.parametrize("secret", [SECRET, KEY])
@settings(max_examples=30)
@given(shift=st.integers(-60, 60))
def test_no_part_of_a_known_secret_is_left_where_a_text_is_cut(secret: str, shift: int) -> None:
    redact = Redaction([secret])

    beginning = redact("." * (LONGEST + shift) + secret + "." * LONGEST)
    end = redact.end_of(".\n" * LONGEST + secret + "." * (LONGEST + shift))

    assert longest_part_of(secret, beginning) <= 1
    assert longest_part_of(secret, end) <= 1


@pytest.mark.parametrize(
    ("before", "secret"),
    [
        ("s3://somebody:", "Passw0rd/With@Marks"),
        ("password=", "Qz7!kkq"),
        ("authorization: Bearer ", "eyJhbGciOiJIUzI1NiIsInR5cCI6"),
        ("X-Amz-Signature=", "0123456789abcdef"),
        ("key ", "AKIAIOSFODNN7EXAMPLE"),
    ],
)
@pytest.mark.parametrize("filler", ["etc ", "x"])
def test_no_part_of_what_looks_like_a_secret_is_left_where_a_text_is_cut(
    before: str, secret: str, filler: str
) -> None:
    redact = Redaction()
    for shift in (*range(len(secret) + 2), 256, 256 + len(secret) // 2):
        head = (filler * LONGEST)[: LONGEST - len(before) - shift]
        text = head + before + secret + "@host" + filler * 300

        shown = redact(text)

        assert longest_part_of(secret, shown) <= 1
        assert len(shown) <= LONGEST + 1 + len(HIDDEN)


def test_a_secret_is_found_in_the_forms_in_which_it_is_written() -> None:
    secret = 'a"b\\c\nd é'
    redact = Redaction([secret])

    for text in (secret, json.dumps({"x": secret}), repr({"x": secret}), str([secret])):
        assert "\\c" not in redact(text)


@pytest.mark.parametrize(
    ("secret", "encoded"), [("pass\udcffword", "pass%FFword"), ("pass\ud800word", "pass%3Fword")]
)
def test_a_secret_that_is_not_utf8_is_hidden(secret: str, encoded: str) -> None:
    """A variable of the environment may hold any bytes."""
    redact = Redaction([secret])

    assert [redact(text) for text in (secret, encoded, repr(secret), json.dumps(secret))] == [
        HIDDEN, HIDDEN, f"'{HIDDEN}'", f'"{HIDDEN}"',
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["token", "my-token-" + "x" * 300, "x" * 300 + "_SECRET", "'password'", '\\"api_key\\"', "TOKEN  "],
)
@pytest.mark.parametrize("between", ["=", ": ", " = '", ": b'", " " * 50 + "=" + " " * 50])
def test_a_value_is_hidden_whatever_its_name_is_made_of(name: str, between: str) -> None:
    assert "abc123" not in Redaction()(f"other=1, {name}{between}abc123 end")


def test_a_name_in_a_value_is_seen_as_well() -> None:
    assert "abc123" not in Redaction()("query=token=abc123 x:secret:abc123")


def test_the_end_of_a_text_of_one_long_line_is_its_beginning() -> None:
    assert Redaction().end_of("head " + "x" * 2 * LONGEST).startswith("head xxx")


def test_a_hostile_text_costs_a_bounded_number_of_steps_however_long_it_is() -> None:
    """Each pattern sees at most `LONGEST` characters, and takes at most so many steps for each."""
    short, long = (
        sum(steps(pattern, "://:" * count, whole=False, most=10**6) for pattern in redaction.ALL_PATTERNS)
        for count in (250, 500)
    )

    assert long <= 2.05 * short
    assert len(Redaction()("://:" * 10**6)) <= LONGEST + 1
