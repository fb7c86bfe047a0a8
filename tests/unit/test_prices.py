"""The price table: what it says, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from snapferry.orchestrator.planning.prices import OPERATIONS, InvalidPrices, PriceTable, read_prices
from snapferry.workers.messages import Price

TABLE = """
currency = "USD"

[[price]]
store = "s3://"
egress = 0.09
[price.requests]
GetObject = 0.0004
PutObject = 0.005

[[price]]
store = "s3://near/"
"""


def table(tmp_path: Path, text: str | bytes) -> PriceTable:
    path = tmp_path / "prices.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_prices(str(path))


def test_a_table_is_read(tmp_path: Path) -> None:
    found = table(tmp_path, TABLE)

    assert found.currency == "USD"
    assert found.prices == (
        Price(store="s3://", egress=0.09, requests={"GetObject": 0.0004, "PutObject": 0.005}),
        Price(store="s3://near/"),
    )
    assert found.has_price_for("s3://bucket/prefix?region=eu-1")
    assert not found.has_price_for("file:///srv/store")


def test_the_requests_that_have_prices_are_those_that_stores_count() -> None:
    assert {"GetObject", "HeadObject", "ListObjectsV2", "PutObject", "UploadPart"} <= OPERATIONS


HEAD = 'currency = "USD"\n[[price]]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("currency = \n", "is not TOML: Invalid value (at line 1, column 12)"),
        (HEAD + "store\n", "is not TOML: Expected '=' after a key in a key/value pair (at line 3, column 6)"),
        (b"\xff", "is not TOML: it is not in UTF-8"),
        ("x = " + "[" * 100_000, "is not TOML: it is nested too deeply"),
        ("", 'currency must be a text, as in currency = "USD"'),
        ("currency = 5", 'currency must be a text, as in currency = "USD"'),
        ('currency = "\\u001b[31m"', 'currency must be a text, as in currency = "USD"'),
        ('currency = "USD"', "it must have at least one [[price]]"),
        ('currency = "USD"\nprice = 5', "it must have at least one [[price]]"),
        ('currency = "USD"\nprice = []', "it must have at least one [[price]]"),
        ('curency = "USD"', "unknown key 'curency'; did you mean 'currency'?; known: currency, price"),
        (HEAD, "price 1: store must be the beginning of a store's URL"),
        (HEAD + 'store = "bucket"', "price 1: store must be the beginning of a store's URL"),
        (
            HEAD + 'store = "s3://"\negres = 1',
            "price 1: unknown key 'egres'; did you mean 'egress'?; known: store, egress, requests",
        ),
        (HEAD + 'store = "s3://"\negress = "1"', "price 1: egress must be a number of at least 0"),
        (HEAD + 'store = "s3://"\negress = -1', "price 1: egress must be a number of at least 0"),
        (HEAD + 'store = "s3://"\negress = nan', "price 1: egress must be a number of at least 0"),
        (HEAD + 'store = "s3://"\negress = inf', "price 1: egress must be a number of at least 0"),
        (HEAD + 'store = "s3://"\negress = true', "price 1: egress must be a number of at least 0"),
        (
            HEAD + 'store = "s3://"\negress = 1' + "0" * 400,
            "price 1: egress must be a number of at least 0",
        ),
        (HEAD + 'store = "s3://"\nrequests = 1', "price 1: requests must be a table, [price.requests]"),
        (
            HEAD + 'store = "s3://"\n[price.requests]\nGET = 1',
            "price 1: unknown request 'GET'; known: Abort",
        ),
        (
            HEAD + 'store = "s3://"\n[price.requests]\nGetObject = -1',
            "price 1: GetObject must be a number of at least 0",
        ),
        (HEAD + 'store = "s3://"\n[[price]]\nstore = "s3://"', "more than one price for 's3://'"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line_that_names_the_file(
    tmp_path: Path, text: str | bytes, said: str
) -> None:
    with pytest.raises(InvalidPrices) as raised:
        table(tmp_path, text)

    assert str(raised.value).startswith(f"price table {tmp_path}/prices.toml: {said}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "said"), [("absent", "No such file or directory"), (".", "is not a regular file")]
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(InvalidPrices, match=said):
        read_prices(str(tmp_path / name))
