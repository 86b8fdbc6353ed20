"""One fault has one exit code, whatever command meets it: the table of the README, tried on the commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from handlers.errors import ExitCode
from tests.integration.host.ssh_target import CLOSED_PORT
from tests.integration.phases.looks import FILE

NEED_THE_LEDGER = (
    "resume",
    "resume --due",
    "hold --reason x",
    "skip --reason x",
    "rollback --reason x",
    "abort --reason x",
    "unblock abcdef1 --by me",
    "lift abcdef1 --by me",
    "guard",
    "guard --due",
    "history",
    "report",
    "explain",
    "replay",
    "notify list",
    "notify test",
    "notify --due",
    "queue show",
    "queue list",
    "queue show 00000000-0000-0000-0000-000000000001",
    "queue throttle --per-ten-seconds 5 --by me --reason x",
    "workers",
    "db upgrade",
    "db adopt --dry-run",
    "db prune --dry-run",
    "sync status",
)
PROGRAM = """
import contextlib, io, json, sys
from flows.cli import main
place, *commands = json.loads(sys.stdin.read())
sys.stdin = open("/dev/null")
ends = {}
for command in commands:
    sys.argv = ["runbook", *command.split(), "-e", place]
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            main()
        except SystemExit as end:
            ends[command] = [end.code or 0, said.getvalue()]
print(json.dumps(ends))
"""
"""All commands in one process: the imports take longer than the commands."""


def ends(place: str, *commands: str) -> dict[str, tuple[int, str]]:
    """The exit code of each command, and what it wrote on stderr."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([place, *commands]),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return {command: (code, said) for command, (code, said) in json.loads(done.stdout).items()}


def test_a_database_that_is_away_is_no_refusal(tmp_path: Path) -> None:
    """Nobody has to act before the next try: 1, and the sentence names the database without its password."""
    place = tmp_path / "away.toml"
    url = f"postgresql://erp:s3cret@127.0.0.1:{CLOSED_PORT}/erp"
    place.write_text(FILE.format(name="away", url=url, more=""), encoding="utf-8")
    for command, (code, said) in ends(str(place), *NEED_THE_LEDGER).items():
        assert code == ExitCode.OWN_ERROR, f"{command}: {code}, {said}"
        assert "does not answer" in said, command
        assert "s3cret" not in said
        assert "Traceback" not in said


@pytest.mark.parametrize("text", ['name = "x"\nunknown = 1\n', "name = ", None])
def test_a_wrong_environment_file_is_refused(tmp_path: Path, text: str | None) -> None:
    """A person must act first: 5, and one sentence that names the file."""
    place = tmp_path / "wrong.toml"
    if text is not None:
        place.write_text(text, encoding="utf-8")
    commands = ("check", "plan abc", "release abc --yes", "status", "doctor", "verify", "queue show", "logs")
    for command, (code, said) in ends(str(place), *commands).items():
        assert code == ExitCode.REFUSED, f"{command}: {code}, {said}"
        assert "wrong.toml" in said, command
        assert "Traceback" not in said
