"""Tests of the whole repository."""

import sys

# Importing jsonschema would build a grammar of addresses with letters of all languages, for two seconds. No schema has
# that format.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
