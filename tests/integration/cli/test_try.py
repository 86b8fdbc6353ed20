"""`runbook queue try` as a process: every file is reported, and nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

LIMIT_SECONDS = 90
COMMAND = [sys.executable, "-m", "flows.cli", "queue", "try", "--entity"]


async def tried(
    temporary: Path, entity: str, *files: str, stdin: bytes = b""
) -> tuple[int, list[dict[str, Any]], str]:
    """Run the command with its temporary folders in *temporary*; returns exit code, JSON lines and stderr."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        entity,
        *files,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(temporary),
    )
    out, errors = await asyncio.wait_for(process.communicate(stdin), LIMIT_SECONDS)
    assert process.returncode is not None
    return process.returncode, [json.loads(line) for line in out.splitlines()], errors.decode()


def environment(temporary: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(temporary)}


async def test_a_file_that_is_no_body_is_a_line_like_any_other(tmp_path: Path) -> None:
    """A file that is not JSON, empty, binary or too large is refused with the reason; other files are tried."""
    bodies: dict[str, bytes] = {
        "text": b"not JSON",
        "empty": b"",
        "binary": b"\xff\xfe{",
        "large": b" " * (4 * 1024 * 1024 + 1),
        "marked": b'\xef\xbb\xbf{"item": {"item_id": "1", "name": "A"}}',
    }
    for name, body in bodies.items():
        (tmp_path / name).write_bytes(body)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    files = [str(tmp_path / name) for name in bodies]
    code, results, errors = await tried(temporary, "Product", *files, "-", stdin=b'[{"item_id": "2"}, 5]')
    assert (code, errors) == (0, "")
    assert [result["file"] for result in results] == [*files, "-", "-"]
    assert [result["outcome"] for result in results] == [*["refused"] * 4, "applied", "applied", "refused"]
    for result, reason in zip(results, ["not JSON", "empty", "not UTF-8", "larger than"], strict=False):
        assert (result["key"], result["field"], result["row"]) == (None, "(body)", None)
        assert reason in result["reason"]
    assert list(temporary.iterdir()) == []


async def test_a_file_that_cannot_be_read_ends_in_its_exit_code(tmp_path: Path) -> None:
    """A misspelt name is reported in its line and by the exit code; other files are tried."""
    good = tmp_path / "good"
    good.write_text('{"user": {"user_id": "1", "name": "A"}}', encoding="utf-8")
    code, results, errors = await tried(
        tmp_path, "User", str(tmp_path / "misspelt"), str(tmp_path), str(good)
    )
    assert code == 5
    assert "misspelt" in errors
    assert [result["outcome"] for result in results] == ["refused", "refused", "applied"]
    assert "No such file" in results[0]["reason"]
    assert "directory" in results[1]["reason"]


async def test_two_concurrent_trials_do_not_interfere(tmp_path: Path) -> None:
    """Each has its own database."""
    body = tmp_path / "body"
    body.write_text(
        json.dumps({"items": [{"item_id": str(at), "rate": at} for at in range(200)]}), encoding="utf-8"
    )
    for code, results, errors in await asyncio.gather(
        *(tried(tmp_path, "Product", str(body)) for _ in range(2))
    ):
        assert (code, errors) == (0, "")
        assert [(result["key"], result["row"]["price"]) for result in results] == [
            (str(at), at) for at in range(200)
        ]


def _server_numbers(temporary: Path) -> list[int]:
    files = temporary.glob("tds-try-*/postgres/data/postmaster.pid")
    return [int(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()[:1]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_neither_server_nor_folder(tmp_path: Path, number: signal.Signals) -> None:
    """A signal while its server runs, even a second one, leaves no process and no folder."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    body = tmp_path / "body"
    body.write_text(json.dumps([{"item_id": str(at)} for at in range(5000)]), encoding="utf-8")
    process = subprocess.Popen(
        [*COMMAND, "Product", str(body)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(temporary),
        start_new_session=True,
    )
    deadline = time.monotonic() + LIMIT_SECONDS
    # The server creates its pid file before it writes the pid.
    while not (numbers := _server_numbers(temporary)):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    server = numbers[0]
    process.send_signal(number)
    process.send_signal(number)
    assert process.wait(LIMIT_SECONDS) == 128 + number
    assert list(temporary.iterdir()) == []
    assert not Path(f"/proc/{server}").exists() or "postgres" not in Path(f"/proc/{server}/comm").read_text()
