"""
An S3 store with settings of its own in `snapferry.toml`, as a table instead of a URL.

    [stores.backup]
    url = "s3://backup/store"
    storage-class = "STANDARD_IA"
    tags = { team = "backup" }
"""

from __future__ import annotations

from snapferry.stores.errors import InvalidStoreURL
from snapferry.stores.text.similar import suggestion
from snapferry.stores.urls import parse_url


def url_of_store(found: object) -> object:
    """
    Return the URL with all settings of a store's table. Return anything that is not a table unchanged.

    Raises ValueError.
    """
    if not isinstance(found, dict):
        return found
    settings = {str(name).replace("-", "_"): value for name, value in found.items()}
    url = settings.pop("url", None)
    if not isinstance(url, str):
        raise ValueError('needs a url, such as url = "s3://bucket/prefix"')  # noqa: TRY004 - for pydantic
    try:
        place = parse_url(url)
        if settings and not place.kind.parameters:
            raise ValueError("only S3 stores have settings besides url")
        for name in settings:
            if name not in place.kind.parameters:
                known = [parameter.replace("_", "-") for parameter in place.kind.parameters]
                key = name.replace("_", "-")
                meant = suggestion(key, ["url", *known]) or f"; known: {', '.join(['url', *known])}"
                raise ValueError(f"there is no setting {key!r}{meant}")
        twice = [name for name in settings if place.option(name) is not None]
        if twice:
            raise ValueError(f"{twice[0].replace('_', '-')} is set in the url as well")
        return str(place.with_defaults(**{name: _text(name, value) for name, value in settings.items()}))
    except InvalidStoreURL as error:
        raise ValueError(str(error)) from None


def _text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    if name == "tags" and isinstance(value, dict) and all(isinstance(part, str) for part in value.values()):
        return ",".join(f"{key}={part}" for key, part in value.items())
    raise ValueError(f"{name.replace('_', '-')} must be a string")
