"""The scripts of the ledger, each a file in `lua/`. Times are the server's, so machines need not agree about them."""

from __future__ import annotations

from typing import Final

from snapferry.workers.lua import LuaScript


def _load(name: str) -> LuaScript:
    return LuaScript.load(__package__, name)


# Jobs.
CREATE: Final = _load("job/create")
IMPORT: Final = _load("job/import")
FORGET: Final = _load("job/forget")
RELIST: Final = _load("job/relist")
WITHDRAW: Final = _load("job/withdraw")
ADVANCE: Final = _load("job/advance")
SET_FIELDS: Final = _load("job/set_fields")
CANCEL: Final = _load("job/cancel")
PAUSE: Final = _load("job/pause")
DISMISS: Final = _load("job/dismiss")
NOTE_REPAIRS: Final = _load("job/note_repairs")
NOTE_FILES: Final = _load("job/note_files")

# Batches.
BEGIN: Final = _load("batch/begin")
RELEASE: Final = _load("batch/release")
NOTE_CURRENT_OBJECT: Final = _load("batch/note_current_object")
REVOKE_LEASE: Final = _load("batch/revoke_lease")
NOTE_RETRY: Final = _load("batch/note_retry")
NOTE_REQUEUED: Final = _load("batch/note_requeued")
NOTE_MISSING: Final = _load("batch/note_missing")
NOTE_ALL_MISSING: Final = _load("batch/note_all_missing")
PROGRESS: Final = _load("batch/progress")
NOTE_CONFIRMED: Final = _load("batch/note_confirmed")
ACCOUNT: Final = _load("batch/account")
SPEND: Final = _load("batch/spend")

# Parts of an object.
OFFER_PARTS: Final = _load("parts/offer")
CLAIM_PART: Final = _load("parts/claim")
RENEW_PARTS: Final = _load("parts/renew")
FINISH_PART: Final = _load("parts/finish")
GIVE_UP_PART: Final = _load("parts/give_up")

# The orchestrator that drives a job.
START_DRIVING: Final = _load("driver/start")
KEEP_DRIVING: Final = _load("driver/renew")
STOP_DRIVING: Final = _load("driver/stop")
STANDING: Final = _load("driver/standing")

# Tasks in queues.
HAS_TASK: Final = _load("queue/has_task")
PRIORITISE: Final = _load("queue/prioritise")

# Scrubs.
BEGIN_SCRUB: Final = _load("scrub/begin")
SETTLE_SCRUB: Final = _load("scrub/settle")

# Read without a write.
JOB_IDS: Final = _load("query/job_ids")
ENTRIES: Final = _load("query/entries")
STATUSES: Final = _load("query/statuses")
RUNNING: Final = _load("query/running")
