"""Addresses and keys are two spellings of one thing, and nothing else is a key."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from snapferry.stores.address import (
    MANIFESTS,
    OBJECTS,
    Address,
    SnapshotId,
    address_of,
    manifest_key,
    object_key,
    parse_address,
)
from snapferry.stores.errors import InvalidAddress
from tests.property.strategies import addresses, quick, thorough


@quick
@given(addresses)
def test_every_address_comes_back_from_its_keys(address: Address) -> None:
    assert parse_address(address) == address
    assert address_of(object_key(address), OBJECTS) == address
    assert address_of(manifest_key(SnapshotId(address)), MANIFESTS) == address
    assert address_of(object_key(address), MANIFESTS) is None
    assert address_of(manifest_key(SnapshotId(address)), OBJECTS) is None


@quick
@given(addresses, addresses)
def test_keys_sort_as_their_addresses_do(one: Address, other: Address) -> None:
    """A batch is a range of addresses; only so is it a range of keys as well."""
    assert (object_key(one) < object_key(other)) == (one < other)


# Keys and texts near to right ones: cut, longer, in capitals, with other separators, or anything.
near_keys = st.builds(
    lambda address, cut, text: object_key(address)[:cut] + text + object_key(address)[cut:],
    addresses,
    st.integers(0, 80),
    st.one_of(st.just(""), st.sampled_from(["/", "..", "\n", "A", "g", ".tmp-x"]), st.text(max_size=3)),
)


@thorough
@given(st.one_of(near_keys, st.text(max_size=90)))
def test_a_key_that_yields_an_address_is_the_key_of_that_address(key: str) -> None:
    address = address_of(key, OBJECTS)

    assert address is None or object_key(address) == key


@thorough
@given(st.one_of(st.text(max_size=70), st.text("0123456789abcdefABCDEF/.\n", min_size=62, max_size=66)))
@example("a" * 64 + "\n")
@example("a" * 63 + "\u0661")
@example("../" * 21 + "a")
def test_no_text_but_64_lowercase_hex_digits_becomes_a_key(text: str) -> None:
    if len(text) == 64 and set(text) <= set("0123456789abcdef"):
        key = object_key(parse_address(text))
        assert posixpath.normpath(key) == key
    else:
        with pytest.raises(InvalidAddress):
            parse_address(text)
