"""The policies of docs/iam.md, read from the page itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs/iam.md"

Permission = tuple[str, str]
"""An action and the resource that it is for."""


def documents() -> dict[str, Any]:
    """Return the JSON documents of the page by the heading that they are below."""
    found = {}
    for section in re.split(r"^##+ ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        heading, _, text = section.partition("\n")
        blocks = re.findall(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        assert len(blocks) <= 1, heading
        if blocks:
            found[heading] = json.loads(blocks[0])
    return found


def permissions(heading: str, bucket: str = "BUCKET", prefix: str = "PREFIX") -> list[Permission]:
    """Return each action of a policy with each of its resources, in the store at *prefix* of *bucket*."""
    return [
        (action, resource.replace("BUCKET", bucket).replace("PREFIX", prefix))
        for statement in documents()[heading]["Statement"]
        for action, resource in product(_listed(statement["Action"]), _listed(statement["Resource"]))
    ]


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def policy(allowed: list[Permission]) -> dict[str, Any]:
    """Return a policy that allows just *allowed*."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": action, "Resource": resource} for action, resource in allowed
        ],
    }


def without_one(allowed: list[Permission]) -> Iterator[tuple[Permission, list[Permission]]]:
    """Yield each permission with the list of the others."""
    for left_out in allowed:
        yield left_out, [one for one in allowed if one != left_out]
