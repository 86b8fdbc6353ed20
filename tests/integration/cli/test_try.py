"""`runbook queue try` as a person runs it: every file is told, nothing is left behind."""

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
    """Run the command with its temporary folders in *temporary*: exit code, lines, what it said beside."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        entity,
        *files,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(temporary),
    )
    out, said = await asyncio.wait_for(process.communicate(stdin), LIMIT_SECONDS)
    assert process.returncode is not None
    return process.returncode, [json.loads(line) for line in out.splitlines()], said.decode()


def environment(temporary: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(temporary)}


async def test_a_file_that_is_no_body_is_a_line_like_any_other(tmp_path: Path) -> None:
    """Not JSON, empty, binary, too large: refused with the reason, and the files beside them are tried."""
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
    code, told, said = await tried(temporary, "Product", *files, "-", stdin=b'[{"item_id": "2"}, 5]')
    assert (code, said) == (0, "")
    assert [one["file"] for one in told] == [*files, "-", "-"]
    assert [one["outcome"] for one in told] == [*["refused"] * 4, "applied", "applied", "refused"]
    for one, reason in zip(told, ["not JSON", "empty", "not UTF-8", "larger than"], strict=False):
        assert (one["key"], one["field"], one["row"]) == (None, "(body)", None)
        assert reason in one["reason"]
    assert list(temporary.iterdir()) == []


async def test_a_file_that_cannot_be_read_ends_in_its_exit_code(tmp_path: Path) -> None:
    """A misspelt name is told in its line and by the exit code, and hides no other file."""
    good = tmp_path / "good"
    good.write_text('{"user": {"user_id": "1", "name": "A"}}', encoding="utf-8")
    code, told, said = await tried(tmp_path, "User", str(tmp_path / "misspelt"), str(tmp_path), str(good))
    assert code == 5
    assert "misspelt" in said
    assert [one["outcome"] for one in told] == ["refused", "refused", "applied"]
    assert "No such file" in told[0]["reason"]
    assert "directory" in told[1]["reason"]


async def test_two_at_once_do_not_meet(tmp_path: Path) -> None:
    """Each has a database of its own."""
    body = tmp_path / "body"
    body.write_text(
        json.dumps({"items": [{"item_id": str(at), "rate": at} for at in range(200)]}), encoding="utf-8"
    )
    for code, told, said in await asyncio.gather(*(tried(tmp_path, "Product", str(body)) for _ in range(2))):
        assert (code, said) == (0, "")
        assert [(one["key"], one["row"]["price"]) for one in told] == [(str(at), at) for at in range(200)]


def _server_numbers(temporary: Path) -> list[int]:
    files = temporary.glob("tds-try-*/postgres/data/postmaster.pid")
    return [int(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()[:1]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_neither_server_nor_folder(tmp_path: Path, number: signal.Signals) -> None:
    """Told to end while its server runs, even twice, the command takes everything with it."""
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
    # The server makes its file a moment before it writes its number into it.
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
