"""The keys of an environment file: one frozen pydantic model for each table."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from handlers.environment.address import Address, parse
from handlers.environment.around import Machine, Upstream
from handlers.environment.bars import Bars
from handlers.environment.day_after import Guard, Heal
from handlers.environment.forge_settings import Forge
from handlers.environment.freezes import Freeze
from handlers.environment.jump import jumps
from handlers.environment.migration_paths import Migrations
from handlers.environment.notification import Notify
from handlers.environment.people import Approval, Role
from handlers.environment.promoting import Promotion
from handlers.environment.receiving import Receiving
from handlers.environment.references import Local, Secret, resolved
from handlers.environment.section import Seconds, Section, is_a_web_address
from handlers.environment.zoho import Zoho

_UNIT = re.compile(r"^[A-Za-z0-9:_.@\-]+$")
NAME = re.compile(r"^[a-z0-9][a-z0-9._-]*$")
"""Valid names of environments and hosts."""


def _is_an_address(text: str) -> str:
    parse(text).raise_if_unusable()
    return text


def _is_a_log_file(text: str) -> str:
    if not re.match(r"(?:/|~/)[^\x00-\x1f]*[^/\x00-\x1f]$", text):
        raise ValueError(f"{text!r} is no path of a file: it must begin with / or ~/")
    return text


def _are_jump_hosts(text: str) -> str:
    jumps(text)
    return text


def _pattern(pattern: re.Pattern[str], meaning: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(f"{value!r} is not {meaning}")
        return value

    return AfterValidator(check)


Unit = Annotated[str, _pattern(_UNIT, "a unit name")]


class Database(Section):
    """The database with the queue, the ERP's tables and our ledger."""

    url: Annotated[
        str,
        BeforeValidator(lambda v: resolved(v) if str(v)[:4] in ("env:", "file") else v),
        AfterValidator(_is_an_address),
    ]
    """libpq's URL or key=value form; `address` says which keys are understood."""
    password: Secret | None = None
    connect_seconds: Seconds = 5
    statement_seconds: Seconds = 30
    pool_size: Annotated[int, Field(ge=1, le=50)] = 5

    def address(self) -> Address:
        """The address with the password: never print it."""
        return parse(self.url, password=self.password.get_secret_value() if self.password else None)

    def shown(self) -> str:
        """The address without the password, for printing."""
        return self.address().shown()


class Ssh(Section):
    """The SSH connection to the hosts."""

    user: str
    key_file: Local | None = None
    """With *agent* it may be missing, or encrypted: then it only selects the agent's key."""
    key_passphrase: Secret | None = None
    agent: bool = False
    """Whether the keys of the SSH agent (SSH_AUTH_SOCK) are tried as well."""
    known_hosts_file: Local
    jump: Annotated[str, AfterValidator(_are_jump_hosts)] | None = None
    """The jump hosts to every host, as for ProxyJump: `user@bastion:22`, more of them joined with commas."""
    connect_seconds: Seconds = 5
    command_seconds: Seconds = 60
    """Timeout of one short command; after it the connection is closed."""
    operation_seconds: Seconds = 600
    """Timeout of one detached operation (fetch, switch, hook, restart)."""

    @model_validator(mode="after")
    def _has_a_key(self) -> Self:
        if self.key_file is None and not self.agent:
            raise ValueError("key_file is missing: set it, or agent = true")
        return self


class Host(Section):
    """One target host."""

    name: Annotated[str, _pattern(NAME, "a host's short name (small letters, digits, . _ -)")]
    address: str
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    health_url: Annotated[str, AfterValidator(is_a_web_address)]
    """Address of this host's own health endpoint, not of a load balancer."""
    user: str | None = None
    """Overrides ssh.user for this host."""
    jump: Annotated[str, AfterValidator(_are_jump_hosts)] | None = None
    """Overrides ssh.jump for this host; `none`: no jump host."""
    host_key_alias: str | None = None
    """The name of this host in the known hosts file, if that is not its address."""


class Deploy(Section):
    """How a revision is deployed to a host."""

    strategy: Literal["checkout", "releases"] = "checkout"
    directory: PurePosixPath
    """For `checkout`: the git checkout that the units run from. For `releases`: the folder with repository/ (a clone of
    the remote, bare or not), releases/ and current. `~` is the SSH user's home on the host."""
    remote: str = "origin"
    branch: str = "main"
    """Only revisions reachable from this branch of the remote may be released."""
    state_directory: str = "~/.tds-runbook"
    """The folder of the host's state file, lock and operations; `~` is the SSH user's home on the host."""
    group_factor: Annotated[int, Field(ge=1, le=10)] = 2
    """The deploy starts with one host, then with groups that grow by this factor."""
    keep_trying_seconds: Seconds = 3600
    """On the way back, a host that is not back yet is tried again for this time; then the rollback has failed."""
    before_activate: tuple[str, ...] = ()
    """Commands run on each host in the new tree before the switch (dependencies, migrations)."""
    after_activate: tuple[str, ...] = ()
    """Commands run in the active tree after the switch and before the restart. Hooks have the variables REVISION and
    RUNBOOK_DIRECTION (forward or back), and must be idempotent."""


class Services(Section):
    """The units on each host."""

    command: tuple[str, ...] = ("sudo", "-n", "systemctl")
    """The service manager; `["systemctl", "--user"]` for units of the deploy user."""
    web: tuple[Unit, ...] = ()
    workers: tuple[Unit, ...] = ()
    """Units of the queue workers. Empty when the workers run inside the web unit."""
    stop_seconds: Seconds = 60
    logs: tuple[str, ...] = (
        "journalctl", "--no-pager", "--output", "short-iso", "--unit", "{unit}",
        "--since", "@{since}", "--until", "@{until}", "--lines", "{lines}",
    )  # fmt: skip
    """Prints the last {lines} lines that {unit} logged between {since} and {until} (Unix seconds), for the evidence and
    the report. Empty: logs are not read."""
    log_files: tuple[Annotated[str, AfterValidator(_is_a_log_file)], ...] = ()
    """Log files on each host that are read as well for new errors; `~/` is the SSH user's home on the host."""


class Probe(Section):
    """What counts as a good health answer. Dotted names are paths into the JSON of the answer."""

    revision_field: str = "revision"
    database_field: str | None = None
    """When set, its value must be one of *database_good*."""
    database_good: tuple[str | bool, ...] = ("ok", "up", "healthy", "connected", True)
    worker_revisions_field: str | None = None
    """The revisions that live workers run: a list, or the values of an object. All must be the released one."""
    ca_file: Local | None = None
    """CA certificates (PEM) that are trusted for https health addresses, besides the system's."""
    consecutive: Annotated[int, Field(ge=1, le=100)] = 3
    """The number of good answers in a row that the probe needs."""
    interval_seconds: Seconds = 1
    answer_seconds: Seconds = 5
    limit_seconds: Seconds = 120
    """After this time without success, the probe has failed."""


class Canary(Section):
    """Proving the revision on exactly one dead letter."""

    limit_seconds: Seconds = 60
    poll_seconds: Seconds = 0.5
    compare_row: bool = True
    """Compare the entity's row with the payload afterwards, in the columns of ours that the ERP's table has."""


class Drain(Section):
    """Redriving the other dead letters in growing batches."""

    batch_factor: Annotated[int, Field(ge=1, le=10)] = 2
    batch_size_max: Annotated[int, Field(ge=1, le=5000)] = 500
    settle_seconds: Seconds = 300
    """If a batch has not settled after this time, its open events count as failed."""
    poll_seconds: Seconds = 0.5


class Watch(Section):
    """Watching live traffic after the drain."""

    window_seconds: Seconds = 1800
    interval_seconds: Seconds = 60
    late_seconds: Seconds = 60
    """A live event that is unfinished at this age counts as failed: a stalled worker is a breach. Real seconds."""
    source_down_seconds: Seconds = 300
    """After this time without a measurement, a log or a reading, a person is paged. It is no pass and no breach."""


class Gate(Section):
    """The thresholds of the gate. The runbook sets 95 and 80."""

    good_percent: Annotated[float, Field(gt=0, le=99.9)] = 95
    roll_back_percent: Annotated[float, Field(gt=0, lt=100)] = 80
    tolerable_percent: Annotated[float, Field(gt=0, lt=100)] | None = None
    """Above it a release is hardly ever rolled back, and a person decides. None: a third of the way down."""
    outcomes_min: Annotated[int, Field(ge=1)] = 20
    """A watch with fewer outcomes than this never passes."""
    failures_min: Annotated[int, Field(ge=1)] = 3
    """Fewer failures than this never cause a rollback."""
    instant_errors: tuple[str, ...] = ("greenlet_spawn",)
    """One event with an error of this type or code, or that begins with these words, is an immediate breach."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.roll_back_percent < self.tolerable < self.good_percent:
            raise ValueError("must be roll_back_percent < tolerable_percent < good_percent")
        return self

    @property
    def tolerable(self) -> float:
        """The percentage above which a person decides."""
        if self.tolerable_percent is not None:
            return self.tolerable_percent
        return self.good_percent - (self.good_percent - self.roll_back_percent) / 3


class Reports(Section):
    """The folder of evidence and reports."""

    directory: Local = Path("~/.local/state/tds-runbook/reports")


class Environment(Section):
    """A place that releases go to."""

    name: Annotated[str, _pattern(NAME, "an environment's name (small letters, digits, . _ -)")]
    execution: Literal["workers", "inline"] = "workers"
    """`workers`: the deployed workers apply events. `inline`: without workers, the controller applies them."""
    database: Database
    ssh: Ssh
    hosts: Annotated[tuple[Host, ...], Field(min_length=1)]
    deploy: Deploy
    services: Services
    probe: Probe = Probe()
    canary: Canary = Canary()
    drain: Drain = Drain()
    watch: Watch = Watch()
    gate: Gate = Gate()
    upstream: Upstream | None = None
    """Without it nobody can tell an outage of the upstream from a bad release."""
    receiver: Receiving | None = None
    """Without it no test webhook can be sent."""
    machine: Machine = Machine()
    bars: Bars = Bars()
    zoho: Zoho | None = None
    """Without it there is no sync."""
    guard: Guard = Guard()
    heal: Heal = Heal()
    notify: Notify = Notify()
    roles: tuple[Role, ...] = ()
    approval: Approval = Approval()
    freeze: tuple[Freeze, ...] = ()
    promotion: Promotion | None = None
    """Without it a release needs no proof of another environment."""
    forge: Forge | None = None
    """Without it the commit gets onto deploy.branch in another way."""
    migrations: Migrations = Migrations()
    reports: Reports = Reports()

    def report_folder(self, release_id: str) -> Path:
        """The folder of a release's evidence and report. Releases of two environments may have the same id."""
        return self.reports.directory / self.name / release_id

    @model_validator(mode="after")
    def _hosts_differ(self) -> Self:
        names = [host.name for host in self.hosts]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates:
            raise ValueError(f"two hosts have the name {duplicates[0]!r}: every host needs its own name")
        return self
