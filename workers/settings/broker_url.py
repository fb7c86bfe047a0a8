"""
The URL of the broker: one strict reading of it, for everything that connects to Redis.

    redis://[user:password@]host[:port][/database]
    rediss://…                                              TLS
    valkey://…, valkeys://…                                 the same, under Valkey's names
    unix:///path/of/socket[?db=N]
    sentinel://[user:password@]host[:port][;host[:port]…][/database]?master_name=NAME
    sentinels://…                                           TLS to the sentinels and to Redis

User and password of a ``sentinel://`` URL are those of Redis, as in Celery. Celery's own spelling, which repeats
``sentinel://user:password@`` for each host, is read as well.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

REDIS_PORT: Final = 6379
SENTINEL_PORT: Final = 26379

MOST_SENTINELS: Final = 9
"""A sentinel that is silent is waited for, one after the other."""

_NAMES: Final = {"valkey": "redis", "valkeys": "rediss"}
_SCHEMES: Final = ("redis", "rediss", "valkey", "valkeys", "sentinel", "sentinels", "unix")

_TLS: Final = ("ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
_CREDENTIALS: Final = ("credentials_file", "credentials_command")
_SENTINEL: Final = ("master_name", "sentinel_username", "sentinel_password", "allowed_hosts")

_PARAMETERS: Final[Mapping[str, tuple[str, ...]]] = {
    "redis": _CREDENTIALS,
    "rediss": (*_TLS, *_CREDENTIALS),
    "unix": ("db", *_CREDENTIALS),
    "sentinel": (*_SENTINEL, *_CREDENTIALS),
    "sentinels": (*_SENTINEL, "sentinel_ssl", *_TLS, *_CREDENTIALS),
}

_is_database: Final = re.compile(r"[0-9]{1,9}").fullmatch
_is_host: Final = re.compile(r"[A-Za-z0-9._-]{1,255}|[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9._-]{1,64})?").fullmatch
# The characters that Sentinel allows in a name.
_is_master_name: Final = re.compile(r"[A-Za-z0-9._-]{1,255}").fullmatch
_is_pattern: Final = re.compile(r"(?:\*\.)?[A-Za-z0-9._-]{1,255}").fullmatch


class InvalidBrokerURL(ValueError):
    """The URL of the broker cannot be used. The message gives the reason in one line, without a password."""


@dataclass(frozen=True)
class TLS:
    """How a server's certificate is verified, and which certificate this process shows. Paths are of PEM files."""

    cert_reqs: str = "required"
    ca_certs: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    check_hostname: bool = True


@dataclass(frozen=True)
class BrokerURL:
    """
    The parts of a broker's URL. Its text and its secrets do not appear in its ``repr``.

    *hosts* are the sentinels if there is a *master_name*, else the one Redis server. *path* is that of a unix socket,
    and there are no *hosts* then.
    """

    text: str = field(repr=False)
    """The URL in the spelling that this module writes."""

    scheme: str
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    database: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    tls: TLS | None = None
    master_name: str = ""
    sentinel_username: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)
    sentinel_tls: TLS | None = None
    allowed_hosts: tuple[str, ...] = ()
    """What a sentinel may name: addresses, networks, names, and ``*.domain``. Empty: any host of a network."""

    credentials_file: str | None = None
    credentials_command: str | None = field(default=None, repr=False)

    @property
    def rotates(self) -> bool:
        """Return whether user and password are read at each connection."""
        return bool(self.credentials_file or self.credentials_command)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The passwords in the URL, as they are written and as they are meant."""
        written = [urlsplit(self.text.split(";", 1)[0]).password if self.password else None, self.password]
        return tuple(dict.fromkeys(one for one in (*written, self.sentinel_password) if one))

    @property
    def shown(self) -> str:
        """The URL without user, password and parameters."""
        return shown(self.text)

    def __json__(self) -> str:
        """Return what kombu writes of it: the answer to ``inspect stats`` has the options of the transport."""
        return self.shown


def shown(url: str) -> str:
    """Return *url*, which need not be valid, without user, password and parameters."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].split('?', 1)[0]}"


@lru_cache(maxsize=64)
def parse(url: str) -> BrokerURL:
    """Return the parts of *url*. Raises `InvalidBrokerURL`, which repeats no password."""
    given, separator, rest = url.partition("://")
    scheme = _NAMES.get(given, given)
    if not separator or given not in _SCHEMES:
        # What has no scheme, or an odd one, may be a password: repeat nothing but letters before a ://.
        found = f"; this one begins with {given}://" if separator and given.isalpha() else ""
        raise InvalidBrokerURL(
            f"the broker URL must begin with {', '.join(f'{one}://' for one in _SCHEMES[:-1])} or unix://{found}"
        )
    body, question, query = rest.partition("?")
    options = _options(scheme, query if question else "")
    if scheme == "unix":
        return _of_socket(url, body, options)
    places = [_place(one) for one in _bodies(given, body)]
    usernames = {one.username for one in places} - {None}
    passwords = {one.password for one in places} - {None}
    databases = {one.path.strip("/") for one in places} - {""}
    if len(usernames) > 1 or len(passwords) > 1 or len(databases) > 1:
        raise InvalidBrokerURL(
            "the broker URL names several users, passwords or databases; those of Redis are written once, and those"
            " of the sentinels are the parameters sentinel_username and sentinel_password"
        )
    username, password = usernames.pop() if usernames else None, passwords.pop() if passwords else None
    port = SENTINEL_PORT if scheme.startswith("sentinel") else REDIS_PORT
    hosts = tuple(dict.fromkeys((one.hostname or "localhost", one.port or port) for one in places))
    tls = _tls(options) if scheme in ("rediss", "sentinels") else None
    return BrokerURL(
        text=_text(scheme, body, places, options, tls),
        scheme=scheme,
        hosts=hosts,
        database=_database(databases.pop() if databases else "0"),
        username=None if username is None else unquote(username),
        password=None if password is None else unquote(password),
        tls=tls,
        **_of_sentinels(scheme, places, options, tls),
        **_of_credentials(options, password),
    )


def _options(scheme: str, query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise _unreadable() from None
    options = dict(pairs)
    known = _PARAMETERS[scheme]
    if not set(options) <= set(known) or len(options) < len(pairs) or "#" in query:
        raise InvalidBrokerURL(
            "the broker URL has an unknown parameter, or one twice;"
            f" parameters of {scheme}:// URLs: {', '.join(known)}"
        )
    return options


def _unreadable() -> InvalidBrokerURL:
    return InvalidBrokerURL(
        "the broker URL cannot be read; percent-encode special characters in its password (/ ? # @ : ;)"
    )


def _bodies(given: str, body: str) -> list[str]:
    """Return the part of each host: one, or of sentinels several, each with or without the scheme."""
    if not given.startswith("sentinel"):
        return [body]
    bodies = [one.removeprefix(f"{given}://") for one in body.split(";")]
    if len(bodies) > MOST_SENTINELS:
        raise InvalidBrokerURL(f"the broker URL names more than {MOST_SENTINELS} sentinels")
    return bodies


def _place(body: str) -> SplitResult:
    place = urlsplit("")
    try:
        place = urlsplit(f"redis://{body}")
        # An @ after the host: a password with a slash in it was cut in two there.
        usable = place.port != 0 and not place.fragment and "@" not in place.path and "#" not in body
        usable = usable and (not place.hostname or _is_host(place.hostname) is not None)
    except ValueError:
        usable = False
    if not usable:
        raise _unreadable()
    return place


def _database(found: str) -> int:
    if not _is_database(found):
        raise InvalidBrokerURL(
            "the database in the broker URL must be a number, as in redis://host:6379/0 or unix:///path?db=0"
        )
    return int(found)


def _of_socket(url: str, body: str, options: dict[str, str]) -> BrokerURL:
    if "#" in body:
        raise _unreadable()
    if not body.startswith("/"):
        raise InvalidBrokerURL(
            "a unix:// broker URL must be unix:///path/of/socket, without user, password or host"
        )
    return BrokerURL(
        text=url,
        scheme="unix",
        path=unquote(body),
        database=_database(options.get("db", "0")),
        **_of_credentials(options, None),
    )


def _of_sentinels(
    scheme: str, places: list[SplitResult], options: dict[str, str], tls: TLS | None
) -> dict[str, Any]:
    if not scheme.startswith("sentinel"):
        return {}
    if not all(one.hostname for one in places):
        raise InvalidBrokerURL(f"a {scheme}:// broker URL must name the host of each sentinel")
    name = options.get("master_name", "")
    if not _is_master_name(name):
        raise InvalidBrokerURL(
            f"a {scheme}:// broker URL needs the name that the sentinels give the primary, as in ?master_name=mymaster"
        )
    allowed = tuple(one for one in options.get("allowed_hosts", "").split(",") if one)
    if not all(map(_is_allowed_form, allowed)):
        raise InvalidBrokerURL(
            "allowed_hosts in the broker URL must be addresses, networks or names, separated by commas"
        )
    plain = _flag(options, "sentinel_ssl", default=True) is False
    return {
        "master_name": name,
        "sentinel_username": options.get("sentinel_username") or None,
        "sentinel_password": options.get("sentinel_password") or None,
        "sentinel_tls": None if plain else tls,
        "allowed_hosts": allowed,
    }


def _is_allowed_form(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return _is_pattern(text) is not None and not text.replace(".", "").isdigit()
    return True


def _of_credentials(options: dict[str, str], password: str | None) -> dict[str, Any]:
    given = [name for name in _CREDENTIALS if name in options]
    if len(given) > 1:
        raise InvalidBrokerURL("the broker URL has both credentials_file and credentials_command; give one")
    if given and password is not None:
        raise InvalidBrokerURL(f"the broker URL has a password and {given[0]}; give one")
    if any(not options[name].strip() for name in given):
        raise InvalidBrokerURL(f"{given[0]} in the broker URL is empty")
    path = options.get("credentials_file")
    if path is not None and not path.startswith("/"):
        raise InvalidBrokerURL("credentials_file in the broker URL must be an absolute path")
    return {"credentials_file": path, "credentials_command": options.get("credentials_command")}


def _tls(options: dict[str, str]) -> TLS:
    checks = options.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if checks not in ("required", "optional", "none"):
        raise InvalidBrokerURL("ssl_cert_reqs in the broker URL must be required, optional or none")
    return TLS(
        checks,
        options.get("ssl_ca_certs") or None,
        options.get("ssl_certfile") or None,
        options.get("ssl_keyfile") or None,
        _flag(options, "ssl_check_hostname", default=True),
    )


def _flag(options: dict[str, str], name: str, *, default: bool) -> bool:
    found = options.get(name, str(default)).lower()
    if found not in ("true", "false"):
        raise InvalidBrokerURL(f"{name} in the broker URL must be true or false")
    return found == "true"


def _text(scheme: str, body: str, places: list[SplitResult], options: dict[str, str], tls: TLS | None) -> str:
    if scheme.startswith("sentinel"):
        user = next((one.netloc.rpartition("@")[0] + "@" for one in places if "@" in one.netloc), "")
        hosts = ";".join(one.netloc.rpartition("@")[2] for one in places)
        database = next((one.path for one in places if one.path.strip("/")), "")
        body = f"{user}{hosts}{database}"
    if tls:
        options = options | {"ssl_cert_reqs": tls.cert_reqs}
    return f"{scheme}://{body}" + (f"?{urlencode(options)}" if options else "")
