"""The variables of the environment that steer snapferry."""

from __future__ import annotations

from snapferry.workers.settings.environment import Settings

READ = {f"SNAPFERRY_{field.upper()}" for field in Settings.model_fields}
READ |= {
    "SNAPFERRY_COMPLETION_TIMEOUT",
    "SNAPFERRY_FLOWER_BASIC_AUTH",
    "SNAPFERRY_DASHBOARD_BASIC_AUTH",
    "SNAPFERRY_NOTIFY_URLS",
    "SNAPFERRY_STATE_DIR",
}
