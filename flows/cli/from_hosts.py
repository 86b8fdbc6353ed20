"""What the commands do when the database is away: show what the hosts say, and go back without the ledger."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from flows.cli.output import confirm, console, failure, print_json
from handlers.core import open_core
from handlers.environment.frozen import settings
from handlers.environment.last_good import keep
from handlers.environment.load import env_option, load_environment
from handlers.errors import ExitCode, RunbookError
from handlers.host.way_back import HostReturn
from handlers.phases import from_hosts
from handlers.phases.from_hosts import HostReport, Target
from handlers.release.journal import new_path
from handlers.release.phase import short
from handlers.release.settings import without_ledger


def show_hosts(environment: str, error: RunbookError, *, json: bool) -> ExitCode:
    """Print what the hosts say instead of the ledger. The exit code is that of the error."""
    reports = asyncio.run(_survey(environment))
    command = f"runbook rollback --from-hosts {env_option(environment)} --reason REASON"
    if json:
        hosts = [from_hosts.as_json(report) for report in reports]
        print_json({**failure(str(error), error.exit_code), "hosts": hosts, "way_back": command})
        return error.exit_code
    out = console()
    out.print(f"{error}\nWithout it there is no ledger. This is what the hosts say:")
    for report in reports:
        out.print(f"  {report.sentence}")
    out.print(f"The way back without the database: {command}")
    return error.exit_code


def roll_back(
    environment: str, *, reason: str, requested_by: str, yes: bool, use_file: bool, json: bool
) -> ExitCode:
    """Roll back with what the hosts know, and say what the ledger must be told. Raises Refused without a target.

    With *use_file* the environment file as it is now counts, not the settings of the release.
    """
    # Imported here: it loads Prefect, which the views do not need.
    from flows import from_hosts as flow

    name, target = asyncio.run(_find_target(environment, use_file=use_file))
    out = None if json else console()
    if out is not None:
        out.print(f"release {target.release}: back to {short(target.back_to)}, token {target.token}")
        for report in target.hosts:
            out.print(f"  {report.sentence}")
    confirm(f"take {name} back to {short(target.back_to)} without the ledger ({reason})?", yes=yes)
    journal = new_path(target.release, datetime.now(UTC))

    def show(host: HostReturn) -> None:
        if out is not None:
            out.print(f"{datetime.now(UTC):%H:%M:%S} {_line(host)}")

    hosts = asyncio.run(
        flow.roll_back(name, target, journal=journal, reason=reason, requested_by=requested_by, show=show)
    )
    all_back = all(host.back for host in hosts)
    code = ExitCode.ROLLED_BACK if all_back else ExitCode.ROLLBACK_FAILED
    option = " --use-file" if use_file else ""
    tell = (
        f"when the database is back, tell the ledger: "
        f"runbook rollback {env_option(environment)} --reason '{reason}'{option}; "
        f"it finds {'the hosts back' if all_back else 'which hosts are back'} and records it. "
        f"What was done is in {journal}"
    )
    _print_end(target, hosts, code, tell, json=json)
    return code


def _print_end(
    target: Target, hosts: tuple[HostReturn, ...], code: ExitCode, tell: str, *, json: bool
) -> None:
    count = sum(host.back for host in hosts)
    sentence = f"{count} of {len(hosts)} hosts are back on {short(target.back_to)}"
    if json:
        outcome = "rolled_back" if code is ExitCode.ROLLED_BACK else "rollback_failed"
        print_json(
            {
                "release": target.release,
                "outcome": outcome,
                "exit_code": int(code),
                "reason": sentence,
                "to": target.back_to,
                "hosts": hosts,
                "tell_the_ledger": tell,
            }
        )
        return
    console().print(f"{sentence}; {tell}")


def _line(host: HostReturn) -> str:
    state = "is back" if host.back else f"is not back after try {host.tries}"
    return f"{host.host} {state}: {host.sentence}"


async def _survey(environment: str, release: str = "") -> tuple[HostReport, ...]:
    async with open_core(await without_ledger(environment, release)) as core:
        return await from_hosts.survey(core)


async def _find_target(environment: str, *, use_file: bool) -> tuple[str, Target]:
    """The name of the environment, and where its hosts go back to.

    All hosts that the release was planned with are asked, not those that the environment file names now.
    """
    if use_file:
        file = load_environment(environment)
        async with open_core(file) as core:
            target = from_hosts.find_target(file.name, await from_hosts.survey(core))
        keep(environment, {target.release: settings(file)})
        return file.name, target
    newest = await without_ledger(environment)
    target = from_hosts.find_target(newest.name, await _survey(environment))
    if (await without_ledger(environment, target.release)).hosts != newest.hosts:
        target = from_hosts.find_target(newest.name, await _survey(environment, target.release))
    return newest.name, target
