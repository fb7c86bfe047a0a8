"""The tree of store errors."""

from __future__ import annotations

import copy
import pickle

import pytest

from snapferry.stores import errors
from snapferry.stores.errors import LONGEST_TEXT, ManifestIncomplete, StoreError, StoreUnavailable

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, StoreError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_survives_a_pickle_and_is_made_again_from_its_args(kind: type[StoreError]) -> None:
    error = kind("s3://bucket", "49dc870d", "it went wrong")

    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), kind(*error.args)):
        assert type(again) is kind
        assert again.args == ("s3://bucket", "49dc870d", "it went wrong")
        assert (again.store, again.subject, again.detail) == again.args
        assert str(again) == "s3://bucket: 49dc870d: it went wrong"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_only_an_unavailable_store_is_worth_another_try(kind: type[StoreError]) -> None:
    assert kind("", "", "").transient is issubclass(kind, StoreUnavailable)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_says_what_it_is(kind: type[StoreError]) -> None:
    assert kind.__doc__
    assert kind.__name__ in (errors.__doc__ or "")


def test_the_tree_is_as_large_as_it_should_be() -> None:
    assert len(KINDS) == 29


def test_parts_that_are_empty_are_not_shown() -> None:
    assert str(StoreError("", "key", "is bad")) == "key: is bad"
    assert str(StoreError("store", "", "is bad")) == "store: is bad"


def test_the_missing_objects_of_a_manifest_stay_in_the_process() -> None:
    error = ManifestIncomplete("store", "id", "2 are missing", ("a", "b"))

    assert error.missing == ("a", "b")
    assert pickle.loads(pickle.dumps(error)).missing in ((), ("a", "b"))
    assert ManifestIncomplete(*error.args).missing == ()


@pytest.mark.parametrize(
    "text", ["x" * 100_000, "\x1b[2J" * 400, "\n" * 999, "\u202e" * 5000, "\ud800" * 1000]
)
def test_text_of_others_is_cut_and_cannot_steer_a_terminal(text: str) -> None:
    error = StoreError("store", text, text)

    for shown in (error.subject, error.detail):
        assert shown.isprintable()
        assert len(shown) <= LONGEST_TEXT
    assert type(error)(*error.args).args == error.args


def test_text_that_fits_is_left_as_it_is() -> None:
    assert StoreError("store", "é" * LONGEST_TEXT, "b").args == ("store", "é" * LONGEST_TEXT, "b")
