"""Copy an object between two stores of one server without sending it: the server copies what this process verifies."""

from __future__ import annotations

import logging
from collections.abc import Callable

from snapferry.stores.address import Address, object_key
from snapferry.stores.backend import Backend
from snapferry.stores.errors import CopyRefused
from snapferry.stores.features import CopiesOnServer, feature_of
from snapferry.stores.runtime.containment import contained

from .streaming import Transfer, stage

logger = logging.getLogger(__name__)


def copy_on_server(
    source: Backend,
    destination: Backend,
    address: Address,
    *,
    size_hint: int = 0,
    on_bytes: Callable[[int], None] | None = None,
) -> int | None:
    """
    As `StreamStore.copy_object`, but the server copies the bytes. Here they are only read, and hashed.

    Returns None where the server does not: then nothing has changed, and `StreamStore.copy_object` may copy the object.
    """
    server = feature_of(destination, CopiesOnServer)
    if server is None:
        return None
    with contained(destination.label, address):
        copy = server.server_copy(source, object_key(address), size_hint)
    if copy is None:
        return None
    transfer = Transfer(
        label=source.label,
        subject=address,
        address=address,
        open=copy.open,
        upload=copy.upload,
        size_hint=size_hint,
        piece_bytes=source.capabilities.piece_bytes_of(size_hint),
        on_bytes=on_bytes,
    )
    try:
        upload, length = stage(transfer)
        with contained(destination.label, address), upload:
            upload.commit()
    except CopyRefused as refusal:
        logger.debug("not copied by the server: %s", refusal)
        return None
    return length
