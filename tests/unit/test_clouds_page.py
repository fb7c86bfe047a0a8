"""What the page on clouds says to write can be used."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from snapferry.stores.urls import parse_url

PAGE = (Path(__file__).parents[2] / "docs" / "clouds.md").read_text()
SERVICES = PAGE.split("\n## ")[2:]


@pytest.mark.parametrize("url", re.findall(r"s3://[^\s'`]+/store[^\s'`]*", PAGE))
def test_every_shown_url_can_be_used(url: str) -> None:
    assert parse_url(url.rstrip('"')).location == "backup"


def test_the_shown_table_can_be_read() -> None:
    (table,) = re.findall(r"^ {4}\[stores\.offsite\]\n(?: {4}.*\n)+", PAGE, re.MULTILINE)
    assert set(tomllib.loads(table)["stores"]["offsite"]) == {"url", "endpoint-url", "region", "profile"}


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.partition("\n")[0])
def test_a_service_has_a_url_and_says_what_proves_a_write_and_what_was_tested(service: str) -> None:
    assert re.search(r"^ {4}s3://backup/store", service, re.MULTILINE)
    assert "*Proof" in service or "prove writes by" in service
    assert re.search(r"\btested\b|\*Tested\*", service) or service.startswith("Amazon S3")
    assert "](https://" in service


def test_the_page_names_the_six_services() -> None:
    assert len(SERVICES) == 6
