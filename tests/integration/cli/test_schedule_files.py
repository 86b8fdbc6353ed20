"""What `deploy/` and docs/operations.md give to systemd and cron really runs."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import yaml
from prefect.server.schemas.schedules import RRuleSchedule
from prefect.settings import get_current_settings
from prefect_redis.cleanup_queue import RedisWorkerCleanupQueueSettings
from prefect_redis.client import RedisMessagingSettings
from prefect_redis.messaging import RedisMessagingPublisherSettings

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
PREFECT = sorted(DEPLOY.glob("prefect/*.service"))
UNITS = [*sorted(DEPLOY.glob("*.service")), *sorted(DEPLOY.glob("*.timer")), *PREFECT]
BINARIES = "/opt/tds-runbook/.venv/bin"
INSTALLED = f"{BINARIES}/runbook"
NAMES = {
    "resume": "nothing is due",
    "guard": "no check is due",
    "heal": "nothing to heal",
}
"""The units and the lines for cron, with what they say where there is nothing to do."""


def unit(path: Path) -> configparser.RawConfigParser:
    """The unit file, with its sections."""
    parsed = configparser.RawConfigParser(strict=False, comment_prefixes=("#",))
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read_string(path.read_text(encoding="utf-8"))
    return parsed


def line_of_cron(name: str) -> str:
    """The command of a line for cron in docs/operations.md."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    lines: list[str] = re.findall(r"^ +\*(?:/15)? \* \* \* \* (.+)$", text, re.MULTILINE)
    [line] = [line for line in lines if f"runbook {name} --due" in line]
    return line


def run_in(folder: Path, command: str, database_url: str) -> subprocess.CompletedProcess[str]:
    """Run a command as the timer would, with this project instead of the installed one and an environment."""
    (folder / "environments").mkdir()
    (folder / "environments" / "production.toml").write_text(
        f"""name = "production"
[database]
url = "{database_url}"
[ssh]
user = "x"
key_file = "/none"
known_hosts_file = "/none"
[[hosts]]
name = "web-1"
address = "127.0.0.1"
health_url = "http://127.0.0.1:1/"
[deploy]
directory = "/srv/erp"
[services]
web = ["tsh-erp"]
""",
        encoding="utf-8",
    )
    here = f"{shlex.quote(sys.executable)} -m flows.cli"
    command = re.sub(r"(/opt/tds-runbook/)?\.venv/bin/runbook", lambda _: here, command)
    command = command.replace("/opt/tds-runbook", shlex.quote(str(folder)))
    command = command.replace("/var/log/tds-runbook.log", shlex.quote(str(folder / "log")))
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(folder / "state")}
    return subprocess.run(
        ["sh", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=folder,
        env=variables,
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_services_command_looks_at_its_environment(tmp_path: Path, database_url: str, name: str) -> None:
    """ExecStart with the instance's name: nothing is due, exit 0."""
    service = unit(DEPLOY / f"tds-runbook-{name}@.service")
    done = run_in(tmp_path, service["Service"]["ExecStart"].replace("%i", "production"), database_url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"production: {NAMES[name]}" in done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_the_line_for_cron_looks_at_its_environment(tmp_path: Path, database_url: str, name: str) -> None:
    """The line of the documentation, with its redirection."""
    done = run_in(tmp_path, line_of_cron(name), database_url)
    assert done.returncode == 0, done.stderr
    assert f"production: {NAMES[name]}" in (tmp_path / "log").read_text(encoding="utf-8")


def test_the_command_of_a_sync_says_what_it_lacks(tmp_path: Path, database_url: str) -> None:
    """ExecStart in an environment that cannot be synced: one sentence, and an exit code that is no failure."""
    service = unit(DEPLOY / "tds-runbook-sync-full@.service")["Service"]
    done = run_in(tmp_path, service["ExecStart"].replace("%i", "production"), database_url)
    assert f"{done.returncode}" in service["SuccessExitStatus"].split(), done.stderr
    assert "production has no table [zoho]" in done.stderr


async def test_schedules_and_timers_of_syncs_agree() -> None:
    """Daily at 02:00, hourly, and every 15 minutes, in the time of Baghdad, as the scheduler of Prefect plans them."""
    deployed = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    schedules = {
        item["parameters"]["kind"]: item["schedules"][0]
        for item in deployed
        if item["entrypoint"] == "flows.production.sync" and "schedules" in item
    }
    begin = datetime(2026, 12, 1, 0, 30, tzinfo=ZoneInfo("Asia/Baghdad"))
    planned: dict[str, list[str]] = {}
    for kind, schedule in schedules.items():
        of_prefect = RRuleSchedule(rrule=schedule["rrule"], timezone=schedule["timezone"])
        dates = await of_prefect.get_dates(3, begin)
        planned[kind] = [date.astimezone(begin.tzinfo).strftime("%d %H:%M:%S") for date in dates]
    assert planned == {
        "full": ["01 02:00:00", "02 02:00:00", "03 02:00:00"],
        "incremental": ["01 01:07:00", "01 02:07:00", "01 03:07:00"],
        "stock": ["01 00:30:00", "01 00:45:00", "01 01:00:00"],
    }
    for kind, time in {"full": "*-*-* 02:00 Asia/Baghdad", "incremental": "*:07", "stock": "*:0/15"}.items():
        assert unit(DEPLOY / f"tds-runbook-sync-{kind}@.timer")["Timer"]["OnCalendar"] == time
        command = unit(DEPLOY / f"tds-runbook-sync-{kind}@.service")["Service"]["ExecStart"]
        assert command.endswith(f"runbook sync {kind} --plain -e %i")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """`systemd-analyze verify` finds no fault in an instance of service and timer."""
    for path in sorted(DEPLOY.glob("tds-runbook-*@.*")):
        text = path.read_text(encoding="utf-8")
        text = re.sub(r"^ExecStart=\S+", f"ExecStart={shutil.which('true')}", text, flags=re.MULTILINE)
        text = re.sub(r"^(User|Group)=.*$", r"\1=root", text, flags=re.MULTILINE)
        (tmp_path / path.name.replace("@.", "@production.")).write_text(text, encoding="utf-8")
    units = [str(path) for path in tmp_path.iterdir()]
    done = subprocess.run(
        ["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    timers = [unit(DEPLOY / f"tds-runbook-{name}@.timer")["Timer"]["OnCalendar"] for name in NAMES]
    assert timers == ["*:0/1", "*:0/1", "*:0/15"]


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze (Debian: systemd) is missing"
)
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_has_nothing_to_say_about_a_unit(path: Path, tmp_path: Path) -> None:
    """A key that it does not know is ignored with a warning, and the hardening with it."""
    for each in UNITS:
        text = each.read_text(encoding="utf-8")
        ours = str(Path(sys.executable).parent)
        (tmp_path / each.name).write_text(text.replace(BINARIES, ours), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / path.name)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if "tds-runbook" in line]
    assert (done.returncode, said) == (0, [])


@pytest.mark.parametrize("path", PREFECT, ids=lambda path: path.name)
def test_a_unit_of_prefect_starts_a_command_that_there_is(path: Path) -> None:
    """Its options too are those of the installed Prefect."""
    words = shlex.split(
        unit(path)["Service"]["ExecStart"].replace(BINARIES, str(Path(sys.executable).parent))
    )
    asked = subprocess.run([*words, "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert asked.returncode == 0, asked.stdout + asked.stderr
    options = {word for word in words if word.startswith("--")}
    assert options - {"--no-services"} <= set(re.findall(r"--[a-z-]+", asked.stdout))


def test_the_variables_of_prefect_are_settings_that_there_are() -> None:
    """A name that Prefect does not know is ignored without a word, and each server is alone again."""
    text = (DEPLOY / "prefect" / "prefect.env").read_text(encoding="utf-8")
    names = set(re.findall(r"^(PREFECT_\w+)=", text, re.MULTILINE))
    assert len(names) > 10
    known = {"PREFECT_API_URL", *get_current_settings().to_environment_variables(), *of_redis()}
    assert names - known == set()


def of_redis() -> set[str]:
    """The variables of the extra `machines` that name an address, and the size of a batch."""
    known = set()
    for model in (RedisWorkerCleanupQueueSettings, RedisMessagingSettings, RedisMessagingPublisherSettings):
        prefix = str(model.model_config.get("env_prefix"))
        known |= {f"{prefix}{name}".upper() for name in model.model_fields}
    return known


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("*.service")), ids=lambda path: path.name)
def test_a_unit_starts_a_command_that_there_is(path: Path) -> None:
    """With options that it has: the start would end with a usage error, each time."""
    [words] = re.findall(rf"{re.escape(INSTALLED)} ([^'\n]*)", unit(path)["Service"]["ExecStart"])
    words = re.sub(r'"\$\(.*?\)"', "commit", words).replace("%i", "production")
    asked = subprocess.run(
        [str(Path(sys.executable).with_name("runbook")), *shlex.split(words), "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
