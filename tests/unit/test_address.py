"""Addresses and the layout of keys."""

from __future__ import annotations

import pytest

from snapferry.stores.address import (
    ADDRESS_LENGTH,
    EMPTY_ADDRESS,
    MANIFESTS,
    OBJECTS,
    address_of,
    manifest_key,
    object_key,
    parse_address,
    parse_addresses,
    parse_snapshot_id,
)
from snapferry.stores.errors import InvalidAddress
from snapferry.stores.hashing import digest

ADDRESS = "49dc870df1de7fd60794cebce449f5ccdae575affaa67a24b62acb03e039db92"


def test_keys_are_sharded_three_three_three_rest() -> None:
    assert object_key(parse_address(ADDRESS)) == f".objects/49d/c87/0df/{ADDRESS[9:]}"
    assert manifest_key(parse_snapshot_id(ADDRESS)) == f".manifests/49d/c87/0df/{ADDRESS[9:]}"


def test_the_empty_address_is_the_digest_of_no_bytes() -> None:
    assert digest(b"") == EMPTY_ADDRESS
    assert len(EMPTY_ADDRESS) == ADDRESS_LENGTH


NOT_ADDRESSES = pytest.mark.parametrize(
    "text",
    [
        "",
        ADDRESS[:-1],
        ADDRESS + "0",
        ADDRESS.upper(),
        ADDRESS[:-1] + "g",
        ADDRESS[:-1] + "\n",
        ADDRESS + "\n",
        " " + ADDRESS[1:],
        "../" * 21 + "a",
        "/etc/passwd",
        "\u0661" * 64,
        "\uff10" * 64,
        "0x" + ADDRESS[2:],
        "\ud800" * 64,
    ],
)


@NOT_ADDRESSES
def test_nothing_but_64_lowercase_hex_digits_is_an_address(text: str) -> None:
    with pytest.raises(InvalidAddress, match="is not 64 lowercase hex digits"):
        parse_address(text)


@NOT_ADDRESSES
def test_one_wrong_text_among_addresses_is_found(text: str) -> None:
    with pytest.raises(InvalidAddress, match="is not 64 lowercase hex digits"):
        parse_addresses([ADDRESS, text, ADDRESS])


def test_texts_that_have_the_digits_of_addresses_only_together_are_no_addresses() -> None:
    with pytest.raises(InvalidAddress):
        parse_addresses([ADDRESS[1:], ADDRESS + "0"])


def test_addresses_are_parsed_in_their_order() -> None:
    assert parse_addresses([ADDRESS, EMPTY_ADDRESS, ADDRESS]) == [ADDRESS, EMPTY_ADDRESS, ADDRESS]
    assert parse_addresses([]) == []


def test_a_long_text_is_shown_in_part() -> None:
    with pytest.raises(InvalidAddress) as raised:
        parse_address("x" * 100_000)

    assert len(str(raised.value)) < 150


@pytest.mark.parametrize(
    "key",
    [
        "",
        ".objects/",
        ADDRESS,
        f".objects/{ADDRESS}",
        f".objects/49d/c87/0df/{ADDRESS[9:]}/",
        f".objects/49d/c87/0df/{ADDRESS[9:]}\n",
        f".objects/49d/c87/0df/{ADDRESS[9:]}.tmp",
        f".objects/49d/c87/0df/.tmp-{ADDRESS[9:]}",
        f".objects/49D/c87/0df/{ADDRESS[9:]}",
        f".objects//49d/c87/0df/{ADDRESS[9:]}",
        f"x.objects/49d/c87/0df/{ADDRESS[9:]}",
        f"x/.objects/49d/c87/0df/{ADDRESS[9:]}",
        f".objects/49d/c87/{ADDRESS[6:]}",
        f".objects/49d/c870/df/{ADDRESS[9:]}",
    ],
)
def test_a_key_of_another_shape_is_a_stranger(key: str) -> None:
    assert address_of(key, OBJECTS) is None
    assert address_of(key, MANIFESTS) is None
