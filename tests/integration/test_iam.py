"""Each job with the policy that docs/iam.md gives it, at a server that enforces policies, and without each action."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import count
from pathlib import Path

import pytest

from snapferry.stores.address import object_key
from snapferry.stores.features import KeepsUnfinished
from snapferry.stores.hashing import digest
from snapferry.stores.urls import parse_url
from tests.iam import IamServer, iam_server
from tests.opening import open_backend
from tests.policies import Permission, documents, permissions, policy
from tests.sample import make_store, random_files

from .forge import Forge
from .processes import Finished, Fleet

pytestmark = pytest.mark.slow

LARGE = bytes(range(256)) * (9 * 4096)
FILES = random_files(6) | {"./large": LARGE}
OTHER = {"./other": b"another snapshot"}

# What a job does without; the tests below show what these are for.
CLEANING = {"s3:AbortMultipartUpload", "s3:ListBucketMultipartUploads"}

SOURCE, DESTINATION = "source", "destination"

CUT = "heal", "source s3:GetObject .manifests/*"


@dataclass
class Bench:
    """A server, a store with a snapshot in one bucket, and room for stores in another."""

    iam: IamServer
    forge: Forge
    folder: Path
    snapshot: str = ""
    small: str = ""
    """A snapshot of a single object."""
    _numbers: Iterator[int] = field(default_factory=count)
    _prefix: str = ""

    @property
    def source(self) -> str:
        return self.iam.url("source/store", SOURCE)

    @property
    def destination(self) -> str:
        return self.iam.url(f"backup/{self._prefix}", DESTINATION)

    def begin_store(self) -> None:
        """Let the destination be a new place from now on."""
        self._prefix = f"run-{next(self._numbers)}"

    def allow(self, user: str, headings: str) -> list[Permission]:
        """Return the permissions of the policies with these *headings*, separated by +."""
        bucket, prefix = ("source", "store") if user == SOURCE else ("backup", self._prefix)
        return [one for heading in headings.split(" + ") for one in permissions(heading, bucket, prefix)]

    def new_folder(self) -> str:
        return str(self.folder / f"tree-{next(self._numbers)}")

    def run(self, *arguments: str) -> Finished:
        return self.forge.run(arguments, self.iam.environment | {"TMPDIR": str(self.folder)})

    def as_admin(self, *arguments: str) -> None:
        """Run a command that may do everything."""
        with self.iam.open():
            ended = self.run(*arguments)
        assert ended.code == 0, ended.err

    def keys(self, folder: str) -> list[str]:
        """Return the keys below *folder* of the destination."""
        prefix = f"{self._prefix}/{folder}"
        with self.iam.open():
            found = self.iam.server.client.list_objects_v2(Bucket="backup", Prefix=prefix)
        return [entry["Key"] for entry in found.get("Contents", ())]

    def unfinished(self) -> list[str]:
        """Return the keys of unfinished uploads to the destination."""
        with self.iam.open():
            found = self.iam.server.unfinished_uploads("backup")
        return [key for key in found if key.startswith(f"{self._prefix}/")]

    def full_key(self, data: bytes) -> str:
        return f"{self._prefix}/{object_key(digest(data))}"


@pytest.fixture(scope="module")
def bench(forge: Forge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("iam")
    with iam_server(folder) as iam:
        for bucket in ("source", "backup"):
            iam.server.client.create_bucket(Bucket=bucket)
        for user in (SOURCE, DESTINATION):
            iam.give(user, policy([("s3:*", "*")]))
        found = Bench(iam, forge, folder)
        found.snapshot = make_store(folder / "store", FILES)
        found.small = make_store(folder / "store", {"./small": b"a single object"})
        make_store(folder / "other", OTHER)
        found.as_admin("sync", str(folder / "store"), found.source, "--all", "-q")
        yield found


def copied(bench: Bench) -> None:
    """Fill the destination with the snapshot of the source."""
    bench.as_admin("sync", bench.source, bench.destination, "--all", "-q")


def other_copied(bench: Bench) -> None:
    """Put a snapshot that the source does not have into the destination."""
    bench.as_admin("sync", str(bench.folder / "other"), bench.destination, "--all", "-q")


def damaged(bench: Bench) -> None:
    """Fill the destination, and spoil a small and a large object and the manifest."""
    copied(bench)
    client = bench.iam.server.client
    manifest, _ = bench.keys(".manifests/")
    wrong = {
        bench.full_key(FILES["./dir 0/file-00000"]): b"x" * 512,
        bench.full_key(LARGE): b"y" * len(LARGE),
        manifest: b"z",
    }
    with bench.iam.open():
        client.delete_object(Bucket="backup", Key=bench.full_key(FILES["./dir 1/file-00001"]))
        for key, data in wrong.items():
            client.put_object(Bucket="backup", Key=key, Body=data)


def named(bench: Bench) -> None:
    copied(bench)
    bench.as_admin("tag", bench.destination, bench.snapshot, "nightly")


def named_at_the_source(bench: Bench) -> None:
    bench.as_admin("tag", bench.source, bench.snapshot, "nightly")


def nothing(bench: Bench) -> None:
    """Leave the destination empty."""


@dataclass(frozen=True)
class Job:
    """A command, what makes its stores ready, and the policies of its users."""

    command: Callable[[Bench], list[str]]
    policies: dict[str, str]
    ready: Callable[[Bench], None] = nothing
    not_needed: tuple[str, ...] = ()
    """The permissions that the policy has for other jobs: user, action, and the end of the resource."""


JOBS = {
    # A few objects are found by one listing, and a single one by a HEAD.
    "sync": Job(
        lambda b: ["sync", b.source, b.destination, "--id", b.snapshot],
        {SOURCE: "Read a store", DESTINATION: "Write to a store"},
        not_needed=("destination s3:GetObject .objects/*",),
    ),
    "sync-one": Job(
        lambda b: ["sync", b.source, b.destination, "--id", b.small],
        {SOURCE: "Read a store", DESTINATION: "Write to a store"},
    ),
    "delete": Job(
        lambda b: ["sync", b.source, b.destination, "--all", "--delete"],
        {SOURCE: "Read a store", DESTINATION: "Write to a store + Delete manifests"},
        other_copied,
    ),
    "push": Job(
        lambda b: ["push", str(b.folder / "other"), b.destination],
        {DESTINATION: "Write to a store"},
        not_needed=("destination s3:GetObject .objects/*",),
    ),
    "plan": Job(
        lambda b: ["plan", b.source, b.destination, "--id", b.small],
        {SOURCE: "Look at a store", DESTINATION: "Read a store"},
        other_copied,
    ),
    "verify": Job(lambda b: ["verify", b.source, "--all"], {SOURCE: "Read a store"}),
    "pull": Job(lambda b: ["pull", b.source, b.new_folder(), "--id", b.snapshot], {SOURCE: "Read a store"}),
    "heal": Job(
        lambda b: ["heal", b.destination, "--from", b.source, "--all"],
        {SOURCE: "Read a store", DESTINATION: "Heal a store"},
        damaged,
        # Without it the worker reads and writes what the server would copy.
        ("destination s3:GetObject .quarantine/*",),
    ),
    "ls": Job(lambda b: ["ls", "-l", b.source], {SOURCE: "Look at a store"}),
    "size": Job(lambda b: ["size", b.source], {SOURCE: "Look at a store"}),
    "tag": Job(
        lambda b: ["tag", b.destination, "latest", "nightly"],
        {DESTINATION: "Look at a store + Names"},
        copied,
        ("destination s3:DeleteObject .names/*",),
    ),
    "untag": Job(
        lambda b: ["untag", b.destination, "nightly"],
        {DESTINATION: "Names"},
        named,
        ("destination s3:PutObject .names/*",),
    ),
    "names": Job(
        lambda b: ["sync", b.source, b.destination, "--all", "--names"],
        {SOURCE: "Read a store + Names", DESTINATION: "Write to a store + Names"},
        named_at_the_source,
        (
            "source s3:PutObject .names/*",
            "source s3:DeleteObject .names/*",
            "destination s3:DeleteObject .names/*",
        ),
    ),
}

PARTS = [
    pytest.param(name, user, number, id=f"{name}-{user}-{action}-{resource.partition('/')[2]}")
    for name, job in JOBS.items()
    for user, headings in job.policies.items()
    for number, (action, resource) in enumerate(
        one for heading in headings.split(" + ") for one in permissions(heading)
    )
]


def allowed(bench: Bench, job: Job) -> dict[str, list[Permission]]:
    return {user: bench.allow(user, headings) for user, headings in job.policies.items()}


def outcome(bench: Bench, job: Job, given: dict[str, list[Permission]]) -> Finished:
    """Run *job* in a new store at the destination, where each user has just the permissions of *given*."""
    for user in (SOURCE, DESTINATION):
        bench.iam.give(user, policy(given.get(user) or [("s3:None", "*")]))
    return bench.run(*job.command(bench))


@pytest.mark.parametrize("name", JOBS)
def test_a_job_runs_with_its_policy(bench: Bench, name: str) -> None:
    job = JOBS[name]
    bench.begin_store()
    job.ready(bench)
    ended = outcome(bench, job, allowed(bench, job))

    assert ended.code == 0, ended.err


@pytest.mark.parametrize(("name", "user", "number"), PARTS)
def test_a_job_fails_without_any_part_of_its_policy_and_names_the_part(
    bench: Bench, name: str, user: str, number: int
) -> None:
    job = JOBS[name]
    bench.begin_store()
    job.ready(bench)
    given = allowed(bench, job)
    action, resource = given[user].pop(number)
    ended = outcome(bench, job, given)

    part = " ".join((user, action, *resource.split("/", 2)[2:]))
    if action in CLEANING or part in job.not_needed:
        assert ended.code == 0, ended.err
    else:
        assert ended.code == 1
        # The reason for a manifest that no store has is cut where the permission would be.
        assert (action if (name, part) != CUT else "AccessDenied") in ended.err


def test_parts_of_a_failed_upload_stay_without_the_permission_to_abort(bench: Bench) -> None:
    wrong = bench.new_folder()
    large = make_store(Path(wrong), {"./large": LARGE})
    (Path(wrong) / object_key(digest(LARGE))).chmod(0o644)
    (Path(wrong) / object_key(digest(LARGE))).write_bytes(b"y" * len(LARGE))
    left = {}
    for action in ("s3:None", "s3:AbortMultipartUpload"):
        bench.begin_store()
        given = bench.allow(DESTINATION, "Write to a store")
        bench.iam.give(DESTINATION, policy([one for one in given if one[0] != action]))
        assert bench.run("sync", wrong, bench.destination, "--id", large).code == 1
        left[action] = bench.unfinished()

    assert left == {"s3:None": [], "s3:AbortMultipartUpload": [bench.full_key(LARGE)] * 2}


@pytest.mark.parametrize("left_out", ["s3:None", "s3:AbortMultipartUpload", "s3:ListBucketMultipartUploads"])
def test_parts_of_a_dead_worker_stay_without_the_permissions_to_list_and_abort(
    bench: Bench, left_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.begin_store()
    given = bench.allow(DESTINATION, "Write to a store")
    bench.iam.give(DESTINATION, policy([one for one in given if one[0] != left_out]))
    key = object_key(digest(LARGE))
    with bench.iam.open():
        bench.iam.server.client.create_multipart_upload(Bucket="backup", Key=bench.full_key(LARGE))
    for name, value in bench.iam.environment.items():
        monkeypatch.setenv(name, value)
    backend = open_backend(parse_url(bench.destination))
    assert isinstance(backend, KeepsUnfinished)
    backend.abort_unfinished(key, len(LARGE))

    assert bool(bench.unfinished()) == (left_out != "s3:None")


def findings(bench: Bench, given: list[Permission]) -> dict[str, set[tuple[str, str]]]:
    """Return level and text of the findings of doctor about the destination, by the names of the checks."""
    bench.begin_store()
    bench.iam.give(SOURCE, policy(bench.allow(SOURCE, "Read a store")))
    prefix = bench.destination.partition("?")[0].rpartition("/")[2]
    own = [(action, resource.replace("PREFIX", prefix)) for action, resource in given]
    bench.iam.give(DESTINATION, policy(own))
    ended = bench.run("doctor", "--from", bench.source, "--to", bench.destination, "--json")
    found: dict[str, set[tuple[str, str]]] = {}
    for finding in ended.document["checks"]:
        if finding["about"] == "destination":
            found.setdefault(finding["check"], set()).add((finding["level"], finding["said"]))
    return found


def levels(found: dict[str, set[tuple[str, str]]]) -> dict[str, set[str]]:
    return {name: {level for level, _ in said} for name, said in found.items()}


DOCTOR = [
    one for heading in ("Write to a store", "Doctor") for one in permissions(heading, "backup", "PREFIX")
]


def test_the_doctor_finds_everything_in_order_with_its_policy(bench: Bench) -> None:
    abort = {"DaysAfterInitiation": 7}
    rule = {"ID": "r", "Status": "Enabled", "Filter": {}, "AbortIncompleteMultipartUpload": abort}
    with bench.iam.open():
        bench.iam.server.client.put_bucket_lifecycle_configuration(
            Bucket="backup", LifecycleConfiguration={"Rules": [rule]}
        )
    found = levels(findings(bench, DOCTOR))

    assert {name: level for name, level in found.items() if level != {"ok"}} == {}
    assert {"store.write", "s3.multipart", "s3.lifecycle", "s3.versions"} <= set(found)


@pytest.mark.parametrize(
    ("left_out", "check", "level"),
    [
        ("s3:GetBucketVersioning", "s3.versions", "note"),
        ("s3:GetLifecycleConfiguration", "s3.lifecycle", "note"),
        ("s3:DeleteObject", "store.delete", "warning"),
        ("s3:AbortMultipartUpload", "s3.abort", "warning"),
        ("s3:PutObject", "s3.multipart", "error"),
        ("s3:GetObject", "store.read", "error"),
    ],
)
def test_the_doctor_names_the_permission_that_is_missing(
    bench: Bench, left_out: str, check: str, level: str
) -> None:
    found = findings(bench, [one for one in DOCTOR if one[0] != left_out])

    assert level in {each for each, _ in found[check]}
    assert any(left_out in said for _, said in found[check]) or check == "s3.versions"


def test_tags_and_an_acl_need_permissions_of_their_own(bench: Bench) -> None:
    more = ["s3:PutObjectTagging", "s3:PutObjectAcl"]
    codes = {}
    for left_out in ("s3:None", *more):
        bench.begin_store()
        given = bench.allow(DESTINATION, "Write to a store")
        given += [(action, where) for action in more for name, where in given if name == "s3:PutObject"]
        bench.iam.give(SOURCE, policy(bench.allow(SOURCE, "Read a store")))
        bench.iam.give(DESTINATION, policy([one for one in given if one[0] != left_out]))
        url = f"{bench.destination}&tags=team%3Dbackup&acl=private"
        codes[left_out] = bench.run("sync", bench.source, url, "--id", bench.small).code

    assert codes == {"s3:None": 0, "s3:PutObjectTagging": 1, "s3:PutObjectAcl": 1}


def test_listing_may_be_limited_to_the_store(bench: Bench) -> None:
    condition = documents()["A bucket that others share"]

    def narrowed(user: str, heading: str) -> dict[str, object]:
        given = bench.allow(user, heading)
        bucket, prefix = given[-1][1].removeprefix("arn:aws:s3:::").split("/")[:2]
        text = json.dumps(condition).replace("BUCKET", bucket).replace("PREFIX", prefix)
        rest = policy([one for one in given if one[0] != "s3:ListBucket"])
        return rest | {"Statement": [*rest["Statement"], json.loads(text)]}

    for snapshot in (bench.snapshot, bench.small):
        bench.begin_store()
        bench.iam.give(SOURCE, narrowed(SOURCE, "Read a store"))
        bench.iam.give(DESTINATION, narrowed(DESTINATION, "Write to a store"))
        ended = bench.run("sync", bench.source, bench.destination, "--id", snapshot)
        assert ended.code == 0, ended.err
    elsewhere = bench.run("ls", bench.iam.url("source/another", SOURCE))
    assert (elsewhere.code, "s3:ListBucket" in elsewhere.err) == (1, True)


def test_workers_and_orchestrators_need_their_own_policies_only(
    bench: Bench, redis_url: str, tmp_path: Path
) -> None:
    bench.begin_store()
    headings = {
        ("worker", SOURCE): "Worker, at a source",
        ("worker", DESTINATION): "Worker, at a destination",
        ("orchestrator", SOURCE): "Look at a store",
        ("orchestrator", DESTINATION): "Orchestrator, at a destination + Delete manifests",
    }
    given = {part: bench.allow(part[1], text) for part, text in headings.items()}
    for (role, side), mine in given.items():
        bench.iam.give(f"{role}-{side}", policy(mine))
    env = {}
    for role in ("worker", "orchestrator"):
        # Both roles know their own keys by the names that the URLs have.
        text = bench.iam.credentials.read_text().replace("[source]", "[s]").replace("[destination]", "[d]")
        file = tmp_path / role
        file.write_text(
            text.replace(f"[{role}-source]", "[source]").replace(f"[{role}-destination]", "[destination]")
        )
        env[role] = bench.iam.environment | {
            "AWS_SHARED_CREDENTIALS_FILE": str(file),
            "SNAPFERRY_ACCESS_DELETE": "s3://backup",
        }
    bench.as_admin("sync", str(bench.folder / "other"), bench.destination, "--all", "-q")
    with (
        Fleet(redis_url, tmp_path, env["worker"]).worker(),
        Fleet(redis_url, tmp_path, env["orchestrator"]).orchestrator() as orchestrator,
    ):
        for options in (["--id", bench.small], ["--all", "--delete"]):
            ended = Fleet(redis_url, tmp_path).sync(bench.source, bench.destination, *options)
            assert ended.code == 0, (ended.err, orchestrator.logged())

    for (role, side), mine in given.items():
        checks = bench.iam.checks(f"{role}-{side}")
        used = {one for one in mine for check in checks if covers(one, check["action"], check["resource"])}
        # A worker lists a source to tell what is missing from what is refused.
        spare = {
            one
            for one in mine
            if one[0] in CLEANING or (role, side, one[0]) == ("worker", SOURCE, "s3:ListBucket")
        }
        assert all(check["allowed"] for check in checks), (role, side)
        assert used | spare == set(mine), (role, side)


def covers(permission: Permission, action: str, resource: str) -> bool:
    return permission[0] == action and fnmatchcase(f"arn:aws:s3:::{resource}", permission[1])
