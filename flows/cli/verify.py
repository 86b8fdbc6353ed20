"""The command `runbook verify`: whether an environment is well now, with or without a release."""

from __future__ import annotations

import asyncio
import json as json_
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.app import app
from flows.cli.options import EnvironmentOption, JsonOption, parse_span
from flows.cli.output import console, print_json
from handlers.core import open_core
from handlers.environment.last_good import last_good
from handlers.environment.redact import known_secrets, redact
from handlers.errors import ExitCode, Refused
from handlers.report.files import write_private
from handlers.report.gather import gather_place, texts
from handlers.report.verdict import Answer


@app.command("verify")
def verify_(
    environment: EnvironmentOption,
    since: Annotated[
        str, typer.Option("--since", help="How far the report looks back: 90m, 24h or 7d.")
    ] = "24h",
    json: JsonOption = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the whole report as Markdown.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the whole report to this file as one HTML page.")
    ] = None,
) -> int:
    """Measure every check of an environment and report on it. Exit code 0: good; 4: not good, or not decidable."""
    seconds = parse_span(since)
    if json and markdown:
        raise Refused("--json and --markdown are two formats: ask for one of them")

    async def execute() -> dict[str, Any]:
        settings = await last_good(environment)
        async with open_core(settings) as core:
            report: dict[str, Any] = redact(
                await gather_place(core, seconds=seconds), known_secrets(settings)
            )
        return report

    report = asyncio.run(execute())
    code = ExitCode.GOOD if report["verification"]["answer"] == Answer.GOOD else ExitCode.HELD
    if html is not None:
        _write(html, texts(report)["html"])
    if json:
        print_json({**json_.loads(texts(report)["json"]), "exit_code": int(code)})
    elif markdown:
        console().print(texts(report)["md"])
    else:
        _print(report, html)
    return code


def _print(report: dict[str, Any], html: Path | None) -> None:
    out, verification = console(), report["verification"]
    out.print(f"{report['environment']} is {verification['answer'].upper()}: {verification['sentence']}")
    for step in verification["next"]:
        out.print(f"  next: {step}")
    for check in report["checks"]:
        subject = f" {check['subject']}" if check["subject"] else ""
        out.print(f"[{check['state']}] {check['name']}{subject}: {check['sentence']}")
    for host in report["hosts_now"]:
        out.print(f"[{'good' if not host['problem'] else 'bad'}] host {host['name']}: {_host(host)}")
    if html is not None:
        out.print(f"the whole report: {html}")


def _host(host: dict[str, Any]) -> str:
    revision = f"runs {host['revision'][:12]}" if host["revision"] else "tells no revision"
    return f"{revision}{', ' + host['problem'] if host['problem'] else ', healthy'}"


def _write(path: Path, text: str) -> None:
    try:
        write_private(path, text)
    except OSError as error:
        raise Refused(f"the report cannot be written to {path}: {error.strerror or error}") from error
