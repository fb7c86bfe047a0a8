"""
Store URLs: which backend a scheme means, how a URL is read, and how it is shown.

    file:///abs/path   file://localhost/abs/path   /abs/path
    s3://bucket/prefix?endpoint_url=https://...&region=...&profile=...   (more: `options`)

A URL never carries a secret: one that does is refused, and `redact` shows it
without. Query parameters are per URL, so two sides of a copy can be at two
endpoints. Reading a URL imports no client library; opening it does.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import parse_qsl, urlencode

from .access import STRICT, AccessPolicy, Right
from .backends.s3 import options as s3_options
from .base import Backend
from .errors import InvalidStoreURL
from .network.endpoint import InvalidEndpoint, parse_endpoint
from .snapshot_store import SnapshotStore

# Longer than any URL that can be meant: a path has at most 4,096 bytes, a key 1,024, a host's name 253.
MAX_URL: Final = 8192
# Room for the names of objects, manifests and temporary files below the root of a store.
MAX_PATH_BYTES: Final = 3900
MAX_PREFIX_BYTES: Final = 900
# An access point's ARN is the longest name of a bucket.
MAX_BUCKET: Final = 255
MAX_OPTION: Final = 4096

S3_PARAMETERS: Final = s3_options.PARAMETERS

_SECRETS: Final = ("secret", "password", "passwd", "token", "credential", "access_key", "signature")

# Control characters, line ends of every kind, and what makes a terminal show a text in another order.
_unprintable = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")

_is_region = re.compile(r"[A-Za-z0-9-]{1,63}").fullmatch

_scheme = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

# scheme -> (module, function) that opens a StoreURL of it
_OPENERS: Final[dict[str, tuple[str, str]]] = {
    "file": ("snapferry.stores.backends.directory.backend", "FileBackend"),
    "s3": ("snapferry.stores.backends.s3.backend", "open_s3"),
}


def add_scheme(scheme: str, module: str, function: str) -> None:
    """
    Let URLs of a further *scheme* be opened by *function* of *module*, in this process and those forked from it.

    Such a URL is the scheme and an absolute path; *function* is called with the `StoreURL`. May be called again.
    """
    _OPENERS[scheme] = module, function


@dataclass(frozen=True)
class StoreURL:
    """
    A store's URL, read and normalised: two URLs of one place are equal.

    *location* is the absolute path of a directory, or the bucket. *prefix* has
    no slash at its ends. *options* are the query parameters, sorted by name.
    """

    scheme: str
    location: str
    prefix: str = ""
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        if self.location.startswith("/"):
            return f"{self.scheme}://{self.location}"
        query = f"?{urlencode(self.options)}" if self.options else ""
        path = f"/{self.prefix}" if self.prefix else ""
        return f"{self.scheme}://{self.location}{path}{query}"

    def option(self, name: str) -> str | None:
        """Return the query parameter *name*, None where the URL has none."""
        return dict(self.options).get(name)

    def with_defaults(self, **options: str | None) -> StoreURL:
        """Return the URL with *options* added that it does not set itself; file URLs take none."""
        if self.scheme != "s3":
            return self
        given = {name: value for name, value in options.items() if value}
        if self.option("unsigned") == "true":
            given.pop("profile", None)
        merged = given | dict(self.options)
        return _s3(self.location, self.prefix, merged)

    def same_place(self, other: StoreURL) -> bool:
        """Say whether both name one place, as far as their texts and this machine's links can tell."""
        if self.scheme == other.scheme == "file":
            # A path that does not resolve, as one that changes meanwhile, is compared as a text.
            with suppress(OSError):
                return os.path.realpath(self.location) == os.path.realpath(other.location)
        here = (self.scheme, self.location, self.prefix, self.option("endpoint_url"))
        return here == (other.scheme, other.location, other.prefix, other.option("endpoint_url"))


def parse_url(text: str) -> StoreURL:
    """
    Read a store URL.

    Raises `InvalidStoreURL`, whose text repeats no secret, for an unknown
    scheme, a relative path, a missing bucket, an unknown parameter, or
    anything that looks like a credential. As in snapdir, paths are taken to
    the letter: ``%20`` is three characters.
    """
    if len(text) > MAX_URL:
        raise InvalidStoreURL("", "the URL of a store", f"has more than {MAX_URL:,} characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidStoreURL("", "the URL of a store", "is not UTF-8") from None
    if "\0" in text:
        raise InvalidStoreURL("", ascii(redact(text)), "has a NUL character in it")
    if _unprintable.search(text):
        raise InvalidStoreURL("", ascii(redact(text)), "has a control character in it")
    if text.startswith("/"):
        return StoreURL("file", _directory(text))
    scheme, separator, _ = text.partition("://")
    if not separator or scheme not in _OPENERS:
        known = ", ".join(f"{name}://" for name in _OPENERS)
        raise InvalidStoreURL("", redact(text), f"is no store URL; use {known} or an absolute path")
    return _parse_s3(text) if scheme == "s3" else _parse_path(scheme, text)


def _parse_path(scheme: str, text: str) -> StoreURL:
    host, slash, path = text.removeprefix(f"{scheme}://").partition("/")
    if host not in ("", "localhost") or not slash:
        raise InvalidStoreURL("", redact(text), f"needs an absolute path, as in {scheme}:///srv/store")
    return StoreURL(scheme, _directory("/" + path))


def _directory(path: str) -> str:
    """
    Return *path* in one spelling, without touching a file system.

    A ``..`` stays, but at the very beginning: where it leads, links decide, and so only the kernel can say it.
    """
    if len(path.encode()) > MAX_PATH_BYTES:
        raise InvalidStoreURL("", "the path of a store", f"has more than {MAX_PATH_BYTES:,} bytes")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    while parts and parts[0] == "..":
        del parts[0]
    return "/" + "/".join(parts)


def _parse_s3(text: str) -> StoreURL:
    place, _, query = text.removeprefix("s3://").partition("?")
    bucket, prefix = s3_options.split_place(place)
    if ("@" in bucket or ":" in bucket) and not s3_options.is_access_point(bucket):
        if bucket.startswith("arn:") and "@" not in place:
            raise InvalidStoreURL(
                "", redact(text), "is not the ARN of an access point; use the bucket's name, or"
                " s3://arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME/prefix",
            )  # fmt: skip
        # No bucket's name has a colon, and a secret key may have a slash: s3://KEY:SEC/RET@bucket.
        raise InvalidStoreURL(
            "", redact(text), "carries credentials; give them by profile or environment instead"
        )
    if not bucket:
        raise InvalidStoreURL("", redact(text), "names no bucket, as in s3://bucket/prefix")
    if len(bucket) > MAX_BUCKET:
        raise InvalidStoreURL(
            "", f"s3://{bucket[:20]}...", f"names a bucket of more than {MAX_BUCKET} characters"
        )
    if bucket in {".", ".."} or "\\" in bucket:
        raise InvalidStoreURL("", f"s3://{bucket}", "names no bucket, as in s3://bucket/prefix")
    return _s3(bucket, _prefix(bucket, prefix), _options(bucket, query))


def _prefix(bucket: str, prefix: str) -> str:
    prefix = prefix.strip("/")
    if len(prefix.encode()) > MAX_PREFIX_BYTES:
        raise InvalidStoreURL("", f"s3://{bucket}", f"has a prefix of more than {MAX_PREFIX_BYTES} bytes")
    if prefix and any(part in {"", ".", ".."} for part in prefix.split("/")):
        said = "has a prefix with an empty part, a . or a ..: what it means differs between servers"
        raise InvalidStoreURL("", redact(f"s3://{bucket}/{prefix}"), said)
    return prefix


def _options(bucket: str, query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError:
        raise InvalidStoreURL("", f"s3://{bucket}", "has parameters that cannot be read") from None
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1 and name in S3_PARAMETERS:
            raise InvalidStoreURL("", f"s3://{bucket}", f"says {name} more than once")
    return dict(pairs)


def _s3(bucket: str, prefix: str, options: Mapping[str, str]) -> StoreURL:
    shown = f"s3://{bucket}"
    for name, value in options.items():
        if len(value) > MAX_OPTION or _unprintable.search(name + value):
            said = f"has a control character, or more than {MAX_OPTION:,} characters, in {name[:40]!a}"
            raise InvalidStoreURL("", shown, said)
    for name in options:
        if any(word in name.lower() for word in _SECRETS):
            raise InvalidStoreURL(
                "", shown, f"carries a secret ({name}); give it by profile or environment instead"
            )
        if name not in S3_PARAMETERS:
            raise InvalidStoreURL(
                "", shown, f"has an unknown parameter {name[:80]!a}; known: {', '.join(S3_PARAMETERS)}"
            )
    endpoint = options.get("endpoint_url", "")
    if endpoint:
        if "@" in endpoint:
            raise InvalidStoreURL("", shown, "carries credentials in its endpoint_url; use a profile instead")
        if "?" in endpoint or "#" in endpoint:
            raise InvalidStoreURL(
                "",
                shown,
                "has an endpoint_url with a query or a fragment; it must end with the host, port or path",
            )
        try:
            endpoint = str(parse_endpoint(endpoint))
        except InvalidEndpoint as error:
            said = f"has an endpoint_url that is no http(s) URL of a server: {error}"
            raise InvalidStoreURL("", shown, said) from None
    region = options.get("region", "")
    if region and not _is_region(region):
        raise InvalidStoreURL("", shown, "has a region that is no region's name, as in eu-central-1")
    if wrong := s3_options.problem(options):
        raise InvalidStoreURL("", shown, wrong)
    kept = {name: value for name, value in options.items() if value}
    if endpoint:
        kept["endpoint_url"] = endpoint
    return StoreURL("s3", bucket, prefix, tuple(sorted(kept.items())))


def parse_place(text: str) -> StoreURL:
    """
    Read a place of an allow-list: a store's URL, or ``s3://`` for any bucket, maybe with parameters.

    Its location is empty where any is meant. Raises `InvalidStoreURL`.
    """
    if text.startswith("s3://") and text[5:6] in {"", "?"}:
        return replace(parse_url(f"s3://any{text[5:]}"), location="")
    return parse_url(text)


def redact(text: str) -> str:
    """
    Return *text* fit to be shown: without user, password, and query parameters.

    A password may hold any character, ``/``, ``?`` and ``@`` too. Where a user
    seems to begin the text, rather too much is left out than too little.
    """
    scheme = _scheme.match(text)
    head = scheme.group() if scheme else ""
    place, _, query = text[len(head) :].partition("?")
    authority = place.partition("/")[0]
    if ":" in authority and "@" in query:
        return f"{head}..."
    if ":" in authority or "@" in authority:
        place = place.rpartition("@")[2]
    return head + place


def prepare(schemes: Iterable[str] = ()) -> None:
    """
    Import what opens stores of *schemes*, all known ones if none is given, and read what their clients are made from.

    Processes that are forked afterwards share it. Connects to nothing. May be called again.
    """
    for scheme in schemes or tuple(_OPENERS):
        _opener(scheme)
        if scheme == "s3":
            from .backends.s3.client import session

            session.prepare()


def _opener(scheme: str) -> Callable[..., Backend]:
    module, function = _OPENERS[scheme]
    found: Callable[..., Backend] = getattr(importlib.import_module(module), function)
    return found


def open_backend(
    url: StoreURL, *rights: Right, access: AccessPolicy = STRICT, create: bool = True
) -> Backend:
    """
    Open the backend that *url* names; nothing is sent to it yet. *rights*, *access* and *create* as for `open_store`.

    This is the one place where a store is opened, and so the one where *access* is asked.
    """
    rights = rights or (Right.READ, Right.WRITE)
    allowed = access.check(url, *rights)
    if allowed.scheme == "file":
        # What was looked at has no links on its way. One that is there now was not looked at.
        return _opener("file")(allowed.location, create=create, links=not access.limits(*rights))
    if allowed.scheme == "s3":
        return _opener("s3")(allowed, access.reach(allowed))
    return _opener(allowed.scheme)(allowed)


def open_store(
    url: str,
    objects_url: str | None = None,
    *rights: Right,
    access: AccessPolicy = STRICT,
    create: bool = True,
) -> SnapshotStore:
    """
    Open the store at *url*; with *objects_url*, its objects are in that pool instead.

    *rights* are what it is opened for, reading and writing if none is given: *access* must allow them, at both
    places. With *create*, the first write makes a directory that does not exist; `SnapshotStore.prepare` does so
    in any case. Raises `InvalidStoreURL` and `NotAllowed`. Sends nothing yet: a store that is not there is noticed
    by the first call that needs it.
    """
    manifests = open_backend(parse_url(url), *rights, access=access, create=create)
    if objects_url is None:
        return SnapshotStore(manifests)
    return SnapshotStore(
        open_backend(parse_url(objects_url), *rights, access=access, create=create), manifests
    )
