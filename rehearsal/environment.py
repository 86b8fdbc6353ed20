"""The environment file of a rehearsal: the same kind that a person writes for a real place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rehearsal import sentinels
from rehearsal.hosts.host import DIRECTORY, UNITS, RehearsalHost
from rehearsal.pace import Pace

_ENVIRONMENT = """# Written by the rehearsal; gone with it.
name = "rehearsal"

[database]
url = "postgresql://erp@127.0.0.1:{database_port}/erp"
password = "file:{secrets}/database"

[ssh]
user = "{user}"
key_file = "{secrets}/key"
{passphrase}known_hosts_file = "{secrets}/known_hosts"
connect_seconds = {connect_seconds}
operation_seconds = {operation_seconds}

{hosts}
[deploy]
strategy = "{strategy}"
directory = "{directory}"
keep_trying_seconds = {operation_seconds}
{hook}
[services]
command = ["systemctl"]
web = ["{web}"]
workers = ["{workers}"]
stop_seconds = 20
logs = ["sh", "-c", 'tail -n "$1" "$HOME/log/$2.log"', "logs", "{{lines}}", "{{unit}}"]
log_files = ["~/log/{web}.log", "~/log/{workers}.log"]

[probe]
revision_field = "revision"
database_field = "database"
worker_revisions_field = "workers.revisions"
consecutive = 2
interval_seconds = 0.3
answer_seconds = {answer_seconds}
limit_seconds = {probe_seconds}

[canary]
limit_seconds = 15
poll_seconds = 0.2

[drain]
settle_seconds = 30
poll_seconds = 0.2

[watch]
late_seconds = {late_seconds}

[gate]
outcomes_min = 20

[bars]
webhook_seconds = {webhook_seconds:g}

[reports]
directory = "{folder}/reports"
"""
_NOTIFY = """
[notify]
answer_seconds = 2
[[notify.addresses]]
name = "nobody"
url = "file:{secrets}/people"
"""
_HOST = """[[hosts]]
name = "{name}"
address = "127.0.0.1"
port = {port}
health_url = "{health_url}"
"""


def write_environment(
    path: Path,
    *,
    database_port: int,
    secrets: Path,
    hosts: Sequence[RehearsalHost],
    pace: Pace,
    start_seconds: float = 0.0,
) -> None:
    """Write the file, and beside the secrets the known hosts that it names."""
    known = "".join(host.known_hosts_line for host in hosts)
    (secrets / "known_hosts").write_text(known, encoding="utf-8")
    listed = "\n".join(
        _HOST.format(name=host.name, port=host.ssh_port, health_url=host.health_url) for host in hosts
    )

    def at_least(seconds: float, starts: float) -> float:
        """*seconds*, or so many times as long as the ERP took to start: a machine slow at that is slow at all."""
        return round(max(seconds, starts * start_seconds), 1)

    text = _ENVIRONMENT.format(
        folder=path.parent,
        secrets=secrets,
        database_port=database_port,
        user=hosts[0].door.user,
        hosts=listed,
        strategy=hosts[0].strategy,
        directory=f"~/{DIRECTORY}",
        web=UNITS[0],
        workers=UNITS[1],
        late_seconds=pace.late_seconds,
        # The webhooks of the day before took so long: they are slow by the clock of the machine.
        webhook_seconds=pace.slowest_seconds,
        # A machine that starts twenty web processes at once is slower than twenty hosts, and it may have other work.
        probe_seconds=at_least(20 + len(hosts), 20),
        answer_seconds=at_least(3, 4),
        connect_seconds=at_least(5, 4),
        operation_seconds=at_least(60, 40),
        passphrase=f'key_passphrase = "file:{secrets}/passphrase"\n' if sentinels.wanted() else "",
        hook=f"before_activate = ['''{sentinels.HOOK}''']\n" if sentinels.wanted() else "",
    )
    if sentinels.wanted():
        # Nobody listens there: the release must go on all the same, and its address must show nowhere.
        address = f"json://{sentinels.make('user')}@127.0.0.1:1/{sentinels.make('hook')}"
        sentinels.write_secret(secrets / "people", address)
        text += _NOTIFY.format(secrets=secrets)
    path.write_text(text, encoding="utf-8")
