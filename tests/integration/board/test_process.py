"""`runbook board` as a process: how it starts and refuses to, and that it ends at once."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import ssl
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy.engine import make_url

from tests.certificates import Authority
from tests.integration.phases.looks import FILE

ROOT = Path(__file__).parents[3]
TOKEN = "a-token-of-more-than-twenty"


@pytest.fixture
def file(tmp_path: Path, database_url: str) -> Path:
    """The environment file of a place with an empty ledger."""
    path = tmp_path / "place.toml"
    url = make_url(database_url).render_as_string(hide_password=False)
    path.write_text(FILE.format(name="place", url=url, more=""), encoding="utf-8")
    return path


async def start(*words: str, folder: Path = ROOT) -> Process:
    """`runbook board` with a token in its environment."""
    variables = {**os.environ, "PLACE_TOKEN": TOKEN, "PLACE_SHORT": "short", "PYTHONPATH": str(ROOT)}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "flows.cli", "board", *words),
        env=variables,
        cwd=folder,
        stdout=PIPE,
        stderr=PIPE,
    )


@asynccontextmanager
async def running(*words: str, folder: Path = ROOT) -> AsyncIterator[tuple[Process, str]]:
    """A running board and its address; killed at the end if it still lives."""
    process = await start(*words, folder=folder)
    try:
        assert process.stderr is not None
        said = b""
        async with asyncio.timeout(60):
            async for line in process.stderr:
                said += line
                if found := re.search(rb"running on (https?://\S+:\d+)", line):
                    yield process, found[1].decode().replace("0.0.0.0", "127.0.0.1")
                    break
            else:
                raise AssertionError(said.decode())
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--listen", "0.0.0.0:0"), "set --token"),
        (("--token", "env:PLACE_SHORT"), "at least 20"),
        (("--certificate", "/none.pem", "--key", "/none.key"), "certificate cannot be used"),
        (("-e", "nowhere"), "there is no environment 'nowhere'"),
    ],
)
async def test_what_is_not_safe_does_not_start(file: Path, words: tuple[str, ...], said: str) -> None:
    """One sentence, exit code 5, and never the token."""
    process = await start("-e", str(file), "--listen", "127.0.0.1:0", *words)
    out, err = await process.communicate()
    assert process.returncode == 5, err.decode()
    assert said in err.decode()
    assert "Traceback" not in err.decode()
    assert TOKEN not in (out + err).decode()


async def test_a_port_that_is_taken_is_said(file: Path) -> None:
    """One sentence that names it."""
    async with running("-e", str(file), "--listen", "127.0.0.1:0") as (_, address):
        taken = address.removeprefix("http://")
        process = await start("-e", str(file), "--listen", taken)
        _, err = await process.communicate()
        assert process.returncode == 5
        assert taken in err.decode()


async def test_it_ends_at_once(file: Path) -> None:
    """Also while somebody is connected."""
    async with running("-e", str(file), "--listen", "127.0.0.1:0") as (process, address):
        async with httpx.AsyncClient(base_url=address, trust_env=False) as client:
            assert (await client.get("/health")).status_code == 200
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            _, err = await process.communicate()
        assert time.monotonic() - began < 20
        assert process.returncode == 0
        assert "Traceback" not in err.decode()


async def test_off_loopback_it_speaks_https_and_wants_its_token(file: Path, tmp_path: Path) -> None:
    """The token is in no list of processes."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    certificate, key = Authority(tmp_path, "ca").issue("board", ["127.0.0.1"])
    words = ("--token", f"file:{tmp_path / 'token'}", "--certificate", str(certificate), "--key", str(key))
    async with running("-e", str(file), "--listen", "0.0.0.0:0", *words) as (process, address):
        assert address.startswith("https://")
        trust = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
        async with httpx.AsyncClient(base_url=address, verify=trust, trust_env=False) as client:
            assert (await client.get("/metrics")).status_code == 401
            good = await client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
            assert good.status_code == 200
            assert 'tds_runbook_up{environment="place"} 1.0' in good.text
        arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert TOKEN.encode() not in arguments


async def test_one_wrong_file_of_a_folder_does_not_hide_the_others(file: Path, tmp_path: Path) -> None:
    """Without -e it serves every environment of the folder; the broken one is down, with the reason."""
    folder = tmp_path / "environments"
    folder.mkdir()
    shutil.copy(file, folder / "place.toml")
    (folder / "broken.toml").write_text('name = "broken"\nnonsense = 1\n')
    async with (
        running("--listen", "127.0.0.1:0", folder=tmp_path) as (_, address),
        httpx.AsyncClient(base_url=address, trust_env=False) as client,
    ):
        health = await client.get("/health")
        assert health.status_code == 503
        states = {each["name"]: each["database"] for each in health.json()["environments"]}
        assert states == {"broken": "down", "place": "up"}
        [alert] = (await client.get("/e/broken/alerts")).json()["alerts"]
        assert "unknown key nonsense" in alert["sentence"]
        assert (await client.get("/e/place/queue")).status_code == 200
