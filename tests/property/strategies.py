"""Generators for what the store format allows. Each says which rule of the grammar it obeys."""

from __future__ import annotations

import string

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from snapferry.stores.address import Address
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.entry import Entry

# A busy machine must not fail a test because examples are generated slowly.
patient = settings(suppress_health_check=[HealthCheck.too_slow])


def examples(number: int) -> int:
    """Return how many of *number* examples a test tries: all of them, or half, as the profile says."""
    return number * patient.max_examples // 100


quick = settings(patient, max_examples=examples(60))
thorough = settings(patient, max_examples=examples(150))
machine = settings(patient, max_examples=examples(60), stateful_step_count=25)

# A checksum of an F line, and every address and id: 64 lowercase hex digits.
addresses = st.integers(0, 2**256 - 1).map(lambda number: Address(f"{number:064x}"))

# PERMISSIONS: the mode in octal, without spaces.
permissions = st.integers(0, 0o7777).map(lambda mode: f"{mode:o}")

# SIZE: decimal, 64 bits, no sign, no leading zeros. Advisory, so any number stands beside any checksum.
sizes = st.one_of(st.integers(0, 10_000), st.integers(0, 2**64 - 1))

# PATH: any text that UTF-8 can carry (so no surrogates), not empty, without a newline. Spaces, tabs,
# carriage returns, # and what Python takes for line ends (\x0b, \x85, \u2028) are all part of it.
_path_characters = st.one_of(
    st.sampled_from(" \t\r#/.\x0b\x0c\x1c\x85\u2028\u2029\ufeff\0F"),
    st.characters(codec="utf-8", exclude_characters="\n"),
)
paths = st.text(_path_characters, min_size=1, max_size=12)

# TYPE F: an object's checksum. TYPE D: a merkle hash, which names no object, and a path that ends with /.
file_entries = st.builds(Entry, st.just("F"), permissions, addresses, sizes, paths)
folder_entries = st.builds(
    Entry, st.just("D"), permissions, addresses, sizes, paths.map(lambda path: path + "/")
)

# A manifest lists each path once.
entry_lists = st.lists(
    st.one_of(file_entries, folder_entries), max_size=12, unique_by=lambda entry: entry.path
)

# Lines that are no part of a manifest: empty ones, and those that begin with #.
strangers_between_lines = st.one_of(
    st.just(b""), st.text(_path_characters, max_size=8).map(lambda text: b"#" + text.encode())
)

# Objects of a plan: distinct addresses, advisory sizes small enough for batches of every shape.
planned_objects = st.dictionaries(addresses, st.integers(0, 120), max_size=60)

# Objects as bytes, most of them distinct, the empty one among them.
object_bytes = st.one_of(st.just(b""), st.binary(max_size=40))


def filed(contents: list[bytes]) -> dict[Address, bytes]:
    """Return address -> bytes of *contents*."""
    return {digest(data): data for data in contents}


# One directory's or prefix's name in a URL: printable, no query, no @ or : in front of it.
url_parts = st.text(string.ascii_letters + string.digits + "-_. %#&=+üß概", min_size=1, max_size=8)
