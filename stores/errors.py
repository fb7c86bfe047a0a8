"""
The errors of stores, as one tree.

    StoreError
    ├── InvalidAddress        not 64 lowercase hex digits
    ├── InvalidName           a text that cannot be the name of a snapshot
    ├── InvalidPattern        a pattern of paths that cannot be used
    ├── InvalidStoreURL       a URL that names no store
    ├── StoreNotFound         the root directory or the bucket does not exist
    ├── SourceEmpty           a source without any manifest, where everything was to be copied
    ├── AccessDenied          the store refuses: credentials, permissions, read-only
    │   ├── ClockWrong        this machine's clock is wrong, so no signature of it is valid
    │   └── NotAllowed        this process's own configuration does not allow the store
    ├── KeyMissing            nothing is filed under a key
    │   ├── ObjectMissing
    │   ├── ManifestMissing
    │   └── NameMissing
    ├── AmbiguousId           the first digits of several snapshot ids
    ├── NameChanged           a name is not of the snapshot that its writer expected
    ├── IntegrityError        bytes that do not hash to what they are filed under
    │   └── Unreadable        bytes that the disk of the store cannot read
    ├── ManifestSyntaxError   a manifest line that cannot be read
    ├── ManifestTooLarge      a manifest, a plan or a listing beyond a bound
    ├── ManifestIncomplete    a manifest whose objects are not all at the destination
    ├── StoreFull             no space or quota left
    ├── StoreFault            any other answer that is not success
    │   ├── CopyRefused       a server does not copy an object by itself
    │   ├── PartsGone         what a copy in parts began with is not there any more
    │   ├── FileChanged       a file of a tree that changed while it was read
    │   └── NotAnObject       a link, a directory or a device in the place of an object or a manifest
    └── StoreUnavailable      no answer, or "later": the one transient class
        └── KeyChanged        another program has written a key that was about to be replaced

A retry depends on ``transient`` alone. Every error is made from ``(store, subject, detail)`` and can be made again from
its ``args``, so it survives any broker or pickle. ``store`` is a label without credentials, ``subject`` the address,
id, key or URL concerned (may be empty).

Subject and detail may hold foreign text: names of files, answers of servers, lines of manifests. They are cut to
`LONGEST_TEXT` characters each, and control characters in them are escaped, so an error may be logged, kept and shown.
"""

from __future__ import annotations

from typing import ClassVar, Final

from .text.printable import printable, shortened

LONGEST_TEXT: Final = 1000


class StoreError(Exception):
    """A store did not do what was requested. The message names the store, the subject and the reason."""

    transient: ClassVar[bool] = False

    def __init__(self, store: str, subject: str, detail: str) -> None:
        super().__init__(printable(store), shortened(subject, LONGEST_TEXT), shortened(detail, LONGEST_TEXT))

    @property
    def store(self) -> str:
        """The store's label, free of credentials; empty where no store is concerned."""
        return str(self.args[0])

    @property
    def subject(self) -> str:
        """The address, snapshot id, key or URL that the error is about; may be empty."""
        return str(self.args[1])

    @property
    def detail(self) -> str:
        """What happened, in words."""
        return str(self.args[2])

    def __str__(self) -> str:
        return ": ".join(part for part in (self.store, self.subject, self.detail) if part)


class InvalidAddress(StoreError):
    """A text that should be an address or a snapshot id is not 64 lowercase hex digits."""


class InvalidName(StoreError):
    """A text that should be the name of a snapshot does not have the form of a name, or is reserved."""


class InvalidPattern(StoreError):
    """A pattern of paths is not a regular expression, or one that this version reads differently than snapdir."""


class InvalidStoreURL(StoreError):
    """A URL does not name a store that this installation can open."""


class StoreNotFound(StoreError):
    """The root directory or the bucket does not exist. It is never taken for an empty store."""


class SourceEmpty(StoreError):
    """
    A source lists no manifest, where all of them were to be copied.

    Such a store looks like a wrong URL and like a disk that is not mounted.
    """


class AccessDenied(StoreError):
    """The store refuses the operation. This tells nothing about what the store holds."""


class ClockWrong(AccessDenied):
    """The store refuses because the clock of this machine is wrong. It tells nothing about the credentials."""


class NotAllowed(AccessDenied):
    """The configuration of this process does not allow it to open the store. Nothing was sent to it."""


class KeyMissing(StoreError):
    """The store answered, and nothing is filed under the key."""


class ObjectMissing(KeyMissing):
    """The store answered, and does not hold the object."""


class ManifestMissing(KeyMissing):
    """The store answered, and does not hold the manifest."""


class NameMissing(KeyMissing):
    """The store answered, and no snapshot has the name."""


class AmbiguousId(StoreError):
    """Several snapshot ids begin with the digits; the detail lists the first of them."""


class NameChanged(StoreError):
    """A name is not of the snapshot that its writer expected. It was not written."""


class IntegrityError(StoreError):
    """Bytes do not hash to the address or id that they are filed under."""


class Unreadable(IntegrityError):
    """The store answers, but its disk cannot read the bytes under an address or id. A second try may succeed."""


class ManifestSyntaxError(StoreError):
    """A manifest has a line that cannot be read; the detail begins with its number."""


class ManifestTooLarge(StoreError):
    """A manifest or a plan exceeds a bound of this process (`bounds`); the detail names the bound."""


class ManifestIncomplete(StoreError):
    """
    A manifest was not written because objects that it names are not at the destination.

    ``missing`` holds their addresses. It stays in the process that raised the error.
    """

    def __init__(self, store: str, subject: str, detail: str, missing: tuple[str, ...] = ()) -> None:
        super().__init__(store, subject, detail)
        self.missing = missing


class StoreFull(StoreError):
    """The store has no space or no quota left."""


class StoreFault(StoreError):
    """The store gave an answer that is neither success nor any error named here."""


class CopyRefused(StoreFault):
    """A server does not copy an object by itself. It can still be read and written."""


class PartsGone(StoreFault):
    """What a copy in parts began with is gone: the version at the source, or its upload. It can be copied whole."""


class FileChanged(StoreFault):
    """A file of a directory tree changed while it was read. Its bytes were not used."""


class NotAnObject(StoreFault):
    """Something that is no regular file is in the place of an object or a manifest. Its bytes were not read."""


class StoreUnavailable(StoreError):
    """The store did not answer, or asked for a later retry. Trying again may succeed."""

    transient = True


class KeyChanged(StoreUnavailable):
    """What is under a key is no longer what was there when it was found wrong. Nothing was replaced."""
