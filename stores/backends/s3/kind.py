"""``s3://``: stores in buckets of Amazon S3 and of servers that speak its protocol."""

from __future__ import annotations

from typing import Final

from snapferry.stores.backend import Backend
from snapferry.stores.urls import Opening, StoreKind, StoreURL

from . import options
from .url import add_options, parse, why_not_on_server


def _open(url: StoreURL, opening: Opening) -> Backend:
    # boto3 takes half a second to import, and processes that only read URLs do not need it.
    from .backend import open_s3

    return open_s3(url, opening.ip_policy)


def _prepare() -> None:
    # As in `_open`.
    from . import backend  # noqa: F401
    from .client.session import prepare

    prepare()


KIND: Final = StoreKind(
    "s3",
    open=_open,
    parse=parse,
    is_metered=True,
    parameters=options.PARAMETERS,
    add_options=add_options,
    why_not_on_server=why_not_on_server,
    prepare=_prepare,
)
