"""Every night: copy the newest snapshot, read the copy again, and report."""

from datetime import timedelta

import pendulum
from airflow.sdk import dag, task

from snapferry.airflow import SnapferrySyncOperator, SnapferryVerifyOperator


@task
def report(copied: dict, verified: dict) -> str:
    """Each argument is the JSON document of a job."""
    line = f"{copied['objects']['copied']} objects copied, {verified['objects']['present']} intact"
    print(line)
    return line


@dag(
    schedule="30 3 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={
        "retries": 3,
        "retry_delay": timedelta(minutes=10),
        "execution_timeout": timedelta(hours=6),
    },
)
def nightly_copy():
    """Stores are named in the snapferry.toml of Airflow's processes; the fleet's Redis in SNAPFERRY_BROKER_URL."""
    copy = SnapferrySyncOperator(
        task_id="copy",
        source="live",
        destination="backup",
        snapshots="latest",
        options={"limits": {"rate": 50_000_000}},
    )
    verify = SnapferryVerifyOperator(
        task_id="verify", store="backup", snapshots="{{ ti.xcom_pull('copy')['snapshot'] }}"
    )
    copy >> verify
    report(copy.output, verify.output)


nightly_copy()
