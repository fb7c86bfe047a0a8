"""
Count the steps of a backtracking matcher, so that a test of a pattern's cost depends on no clock.

`steps` runs a compiled pattern the way Python's `re` does, without its shortcuts, and counts each character class or
literal that is compared with a character. The count is the same on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

_SINGLE = (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN)

Then = Callable[[int], Iterator[int]]


class TooManySteps(Exception):
    """The count went beyond what the caller allows."""


class _Matcher:
    def __init__(self, pattern: re.Pattern[Any], text: Any, most: int) -> None:
        self.steps = 0
        self._most = most
        self._text = text if isinstance(text, str) else text.decode("latin-1")
        source = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
        flags = pattern.flags & ~re.UNICODE if isinstance(pattern.pattern, bytes) else pattern.flags
        self._tree = list(_parser.parse(source, flags))
        self._flags = flags
        self._sets: dict[str, re.Pattern[str]] = {}

    def ends(self, start: int) -> Iterator[int]:
        return self._match(self._tree, 0, start)

    def _match(self, tree: list[Any], at: int, place: int) -> Iterator[int]:
        """Yield each place where the items of *tree* from number *at* on can end when they begin at *place*."""
        while at < len(tree):
            kind, argument = tree[at]
            if kind in _SINGLE:
                if not self._one(kind, argument, place):
                    return
                place += 1
                at += 1
            elif kind in (op.AT, op.ASSERT, op.ASSERT_NOT):
                if not self._holds(kind, argument, place):
                    return
                at += 1
            elif kind in (op.ATOMIC_GROUP, op.POSSESSIVE_REPEAT):
                found = next(self._some(kind, argument, place), None)
                if found is None:
                    return
                place, at = found, at + 1
            else:
                for end in self._some(kind, argument, place):
                    yield from self._match(tree, at + 1, end)
                return
        yield place

    def _some(self, kind: Any, argument: Any, place: int) -> Iterator[int]:
        """Yield the ends of one item, in the order in which a matcher tries them."""
        if kind is op.SUBPATTERN:
            yield from self._match(list(argument[3]), 0, place)
        elif kind is op.ATOMIC_GROUP:
            yield from self._match(list(argument), 0, place)
        elif kind is op.BRANCH:
            for branch in argument[1]:
                yield from self._match(list(branch), 0, place)
        elif kind in (op.MAX_REPEAT, op.POSSESSIVE_REPEAT, op.MIN_REPEAT):
            low, high, body = argument
            yield from self._repeat(list(body), low, high, place, lazy=kind is op.MIN_REPEAT)
        else:
            raise NotImplementedError(str(kind))

    def _repeat(self, body: list[Any], low: int, high: int, place: int, *, lazy: bool) -> Iterator[int]:
        if len(body) == 1 and body[0][0] in _SINGLE:
            if lazy:
                yield from self._lazy_single(body[0], low, high, place)
                return
            end = place
            while end - place < high and self._one(body[0][0], body[0][1], end):
                end += 1
            yield from range(end, place + low - 1, -1)
            return
        if lazy and low <= 0:
            yield place
        if high > 0:
            for end in self._match(body, 0, place):
                if end > place or low > 0:
                    yield from self._repeat(body, max(0, low - 1), high - 1, end, lazy=lazy)
        if not lazy and low <= 0:
            yield place

    def _lazy_single(self, item: Any, low: int, high: int, place: int) -> Iterator[int]:
        end = place
        while end - place < low:
            if not self._one(item[0], item[1], end):
                return
            end += 1
        yield end
        while end - place < high and self._one(item[0], item[1], end):
            end += 1
            yield end

    def _one(self, kind: Any, argument: Any, place: int) -> bool:
        self._count()
        if place >= len(self._text):
            return False
        character = self._text[place]
        if kind is op.LITERAL:
            return self._same(chr(argument), character)
        if kind is op.NOT_LITERAL:
            return not self._same(chr(argument), character)
        if kind is op.ANY:
            return character != "\n" or bool(self._flags & re.DOTALL)
        return self._in(argument, character)

    def _same(self, one: str, other: str) -> bool:
        return one == other or (bool(self._flags & re.IGNORECASE) and one.lower() == other.lower())

    def _in(self, items: Any, character: str) -> bool:
        negated = items[0][0] is op.NEGATE
        code = ord(character)
        codes = (
            {code, ord(character.lower()), ord(character.upper())} if self._flags & re.IGNORECASE else {code}
        )
        found = False
        for kind, argument in items:
            if kind is op.LITERAL:
                found |= argument in codes
            elif kind is op.RANGE:
                found |= any(argument[0] <= one <= argument[1] for one in codes)
            elif kind is op.CATEGORY:
                found |= _is_in(argument, character)
        return found != negated

    def _holds(self, kind: Any, argument: Any, place: int) -> bool:
        self._count()
        if kind is op.AT:
            return self._is_at(argument, place)
        direction, tree = argument
        if direction < 0:
            width = tree.getwidth()[0]
            holds = place >= width and any(end == place for end in self._match(list(tree), 0, place - width))
        else:
            holds = next(self._match(list(tree), 0, place), None) is not None
        return holds is (kind is op.ASSERT)

    def _is_at(self, where: Any, place: int) -> bool:
        text = self._text
        if where in (op.AT_BEGINNING, op.AT_BEGINNING_STRING):
            lines = bool(self._flags & re.MULTILINE) and where is op.AT_BEGINNING
            return place == 0 or (lines and text[place - 1] == "\n")
        if where in (op.AT_END, op.AT_END_STRING):
            return place == len(text) or (where is op.AT_END and text[place:] == "\n")
        if where in (op.AT_BOUNDARY, op.AT_NON_BOUNDARY):
            before = place > 0 and _is_word(text[place - 1])
            after = place < len(text) and _is_word(text[place])
            return (before != after) is (where is op.AT_BOUNDARY)
        raise NotImplementedError(str(where))

    def _count(self) -> None:
        self.steps += 1
        if self.steps > self._most:
            raise TooManySteps


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _is_in(category: Any, character: str) -> bool:
    found = {
        op.CATEGORY_DIGIT: character.isdecimal(),
        op.CATEGORY_SPACE: character.isspace(),
        op.CATEGORY_WORD: _is_word(character),
        op.CATEGORY_NOT_DIGIT: not character.isdecimal(),
        op.CATEGORY_NOT_SPACE: not character.isspace(),
        op.CATEGORY_NOT_WORD: not _is_word(character),
    }
    return found[category]


def steps(pattern: re.Pattern[Any], text: Any, *, whole: bool, most: int) -> int:
    """
    Return the steps that *pattern* takes: to match all of *text* if *whole*, else to find every match in it.

    Raises `TooManySteps` beyond *most*. The matches are compared with those of `re`, so that the count is that of the
    real pattern.
    """
    matcher = _Matcher(pattern, text, most)
    length = len(text)
    if whole:
        found = any(end == length for end in matcher.ends(0))
        assert found is (pattern.fullmatch(text) is not None)
        return matcher.steps
    spans, place = [], 0
    while place <= length:
        end = next(matcher.ends(place), None)
        if end is None:
            place += 1
            continue
        spans.append((place, end))
        place = max(end, place + 1)
    assert spans == [match.span() for match in pattern.finditer(text)]
    return matcher.steps
