"""How the values of options are read: sizes, rates, counts, amounts, durations and queue names."""

from __future__ import annotations

import math
import re
from typing import Any, NoReturn

import click

from snapferry.workers.queues import NAME
from snapferry.workers.settings.durations import seconds_of
from snapferry.workers.settings.quantities import LARGEST_NUMBER, LONGEST_NUMBER, size_of


class _Value(click.ParamType):  # type: ignore[type-arg]  # generic in some versions of click only
    """A type whose errors show the wrong value after what it must be."""

    name = "value"

    def refuse(
        self, value: object, must_be: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> NoReturn:
        self.fail(f"must be {must_be}, not {value!r}.", param, ctx)


class WholeNumber(_Value):
    """An integer from *least* to *most*; the help page shows the range if there is an upper end and *shown*."""

    name = "integer"

    def __init__(self, least: int, most: int = LARGEST_NUMBER, *, shown: bool = True) -> None:
        self.least, self.most = least, most
        self.range_text = f"{least} to {most}" if shown and most < LARGEST_NUMBER else ""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip()
        known = len(text) <= LONGEST_NUMBER and re.fullmatch(r"[+-]?[0-9]+", text)
        if not known or not self.least <= int(text) <= self.most:
            self.refuse(value, f"an integer from {self.least:,} to {self.most:,}", param, ctx)
        return int(text)


class Size(_Value):
    """A size in bytes, plain or with a unit."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = size_of(value)
        if found is None:
            self.refuse(value, "a size such as 500k, 20GB or 1.5TiB", param, ctx)
        if found > LARGEST_NUMBER:
            self.refuse(value, f"at most {LARGEST_NUMBER:,} bytes", param, ctx)
        return found


class Rate(Size):
    """Bytes per second, plain or with a unit; at least one."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = value if isinstance(value, int) else value.strip().removesuffix("/s")
        found = super().convert(text, param, ctx)
        if found < 1:
            self.refuse(value, "at least 1 byte per second; leave the option out for no limit", param, ctx)
        return found


class Amount(_Value):
    """An amount of money."""

    name = "amount"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            amount = float(value)
        except ValueError:
            amount = math.nan
        if not 0 <= amount <= LARGEST_NUMBER:
            self.refuse(value, "an amount of money, such as 12.50", param, ctx)
        return amount


class Duration(_Value):
    """A duration, returned in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return seconds_of(value.strip())
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


class Sample(_Value):
    """A sample such as 1/30, returned as the number of samples."""

    name = "sample"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        numerator, slash, of = value.replace(" ", "").partition("/")
        known = numerator == "1" and slash and len(of) <= LONGEST_NUMBER and re.fullmatch("[0-9]+", of)
        if not known or not 1 <= int(of) <= LARGEST_NUMBER:
            self.refuse(value, "a sample such as 1/30", param, ctx)
        return int(of)


class QueueName(_Value):
    """The name of a queue of batches; "" for the default one."""

    name = "queue"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(NAME, value):
            self.refuse(
                value,
                "up to 40 lowercase letters, digits, - and _ that begin and end with a letter or digit",
                param,
                ctx,
            )
        return "" if value == "default" else str(value)


class OrWord(_Value):
    """A value of the type *inner*, or one of *words*, which are returned as they are."""

    name = "value"

    def __init__(self, inner: _Value, *words: str) -> None:
        self._inner, self._words = inner, words

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value in self._words:
            return value
        try:
            return self._inner.convert(value, param, ctx)
        except click.BadParameter as error:
            words = " or ".join(self._words)
            raise click.BadParameter(
                f"{error.message.removesuffix('.')}; {words} is allowed as well.", ctx, param
            ) from None
