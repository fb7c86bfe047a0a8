"""
The scripts of the limits, each a file in `lua/`. Times are the server's, so machines need not agree about them.

A limit is kept as the moment until which all of it is granted ("until"; GCRA calls it the theoretical arrival time). A
grant moves that moment on by the time that the grant takes at the limit.
"""

from __future__ import annotations

from typing import Final

from snapferry.workers.lua import LuaScript

TAKE: Final = LuaScript.load(__package__, "take")
REFUND: Final = LuaScript.load(__package__, "refund")
SHARE: Final = LuaScript.load(__package__, "share")
LIMIT_JOB: Final = LuaScript.load(__package__, "limit_job")
LIMIT_STORE: Final = LuaScript.load(__package__, "limit_store")
