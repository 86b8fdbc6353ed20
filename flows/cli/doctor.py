"""The doctor: everything that is wrong with an environment, and a bundle of it for a bug report."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from flows.cli import from_hosts
from flows.cli.app import app
from flows.cli.options import EnvironmentOption, JsonOption
from flows.cli.output import console, print_json
from handlers.core import Core, open_core
from handlers.environment.last_good import last_good
from handlers.errors import LEDGER_AWAY, ExitCode, Refused
from handlers.phases import bundle
from handlers.phases.examination import Examination, examine
from handlers.phases.from_hosts import as_json as survey_json

BundleOption = Annotated[
    bool,
    typer.Option(
        "--bundle",
        help="Also write what a bug report needs, without secrets and payloads, to a .tar.gz in this folder.",
    ),
]


@app.command("doctor")
def doctor_(
    environment: EnvironmentOption, *, with_bundle: BundleOption = False, json: JsonOption = False
) -> int:
    """List what is wrong with an environment: schema, privileges, queue, workers, locks, releases, hosts against the
    ledger, health, clocks; changes nothing."""
    try:
        return asyncio.run(_examine(environment, with_bundle=with_bundle, json=json))
    except LEDGER_AWAY as error:
        if with_bundle:
            path = asyncio.run(_bundle_without_ledger(environment, str(error)))
            if not json:
                console().print(f"bundle: {path}")
        return from_hosts.show_hosts(environment, error, json=json)


async def _examine(environment: str, *, with_bundle: bool, json: bool) -> int:
    async with open_core(await last_good(environment)) as core:
        examined = await examine(core)
        path = _path(core.environment.name) if with_bundle else None
        if path is not None:
            await _write(core, examined, "", path)
    if json:
        bundled = {"bundle": path} if path is not None else {}
        print_json(
            {
                "findings": examined.findings,
                "checked": examined.checked,
                "versions": examined.versions,
                "hosts": [survey_json(host) for host in examined.hosts],
                **bundled,
            }
        )
    else:
        _print(examined, path)
    return ExitCode.GOOD


def _print(examined: Examination, path: Path | None) -> None:
    out = console()
    for finding in examined.findings:
        out.print(f"{finding.name:<12} {finding.sentence}")
    if not examined.findings:
        out.print("no problem was found")
    out.print(f"looked at: {'; '.join(examined.checked)}")
    out.print(f"versions: {', '.join(f'{name} {value}' for name, value in examined.versions.items())}")
    if path is not None:
        out.print(f"bundle: {path}")


def _path(name: str) -> Path:
    return Path.cwd() / f"tds-runbook-{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar.gz"


async def _bundle_without_ledger(environment: str, problem: str) -> Path:
    async with open_core(await last_good(environment)) as core:
        path = _path(core.environment.name)
        await _write(core, None, problem, path)
    return path


async def _write(core: Core, examined: Examination | None, problem: str, path: Path) -> None:
    try:
        await bundle.write(core, examined, problem, path)
    except OSError as error:
        raise Refused(f"the bundle {path} cannot be written: {error.strerror}") from error
