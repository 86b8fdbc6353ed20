"""Headless Chromium over its own debugging protocol: it opens pages as a person does, by size, colours and keys."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str:
    """The program, or a skipped test that says what is missing."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("chromium is missing: Debian's package chromium has it")
    return found


@dataclass(kw_only=True)
class Page:
    """One tab."""

    socket: ClientConnection
    session: str
    numbers: count[int] = field(default_factory=count)
    events: list[dict[str, Any]] = field(default_factory=list)
    """What the page has told: errors, refusals of its policy, requests."""

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters, "sessionId": self.session}
        await self.socket.send(json.dumps(message))
        async with asyncio.timeout(60):
            while True:
                answer = json.loads(await self.socket.recv())
                if answer.get("id") == number and answer.get("sessionId") == self.session:
                    assert "error" not in answer, answer
                    result: dict[str, Any] = answer["result"]
                    return result
                self.events.append(answer)

    async def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise is awaited."""
        answer = await self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def open(self, address: str) -> None:
        """Go there, and wait until everything of the page is loaded."""
        await self.send("Page.navigate", url=address)
        await self.until(
            f"location.href.startsWith({json.dumps(address)}) && document.readyState === 'complete'"
        )

    async def until(self, script: str, seconds: float = 60) -> None:
        """Wait until an expression is true in the page."""
        async with asyncio.timeout(seconds):
            while not await self.run(script):  # noqa: ASYNC110  The page is another process.
                await asyncio.sleep(0.1)

    async def look(self, width: int, *, dark: bool = False) -> None:
        """Show the page at this width, on a light or dark screen."""
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", features=[scheme])

    async def press(self, key: str) -> None:
        """Press a key."""
        codes = {"Tab": 9, "Enter": 13}
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            await self.send(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=codes[key],
                **text,
            )

    async def type(self, text: str) -> None:
        """Type into what has the focus."""
        await self.send("Input.insertText", text=text)

    async def picture(self, path: Path) -> None:
        """The whole page as a PNG."""
        size = (await self.send("Page.getLayoutMetrics"))["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = await self.send("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def complaints(self) -> list[str]:
        """Errors of scripts, and what the policy of the page has refused."""
        found = []
        for event in self.events:
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(str(event["params"]["exceptionDetails"]))
            if event.get("method") == "Log.entryAdded":
                entry = event["params"]["entry"]
                if entry["level"] == "error":
                    found.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}")
        return found

    def addresses(self) -> set[str]:
        """Every address that the page has asked for."""
        return {
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        }


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Page]:
    """A tab of a fresh Chromium, which ends with the block."""
    process = await asyncio.create_subprocess_exec(
        chromium(),
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio"),
        *("--remote-debugging-port=0", f"--user-data-dir={folder / 'chromium'}", "about:blank"),
        stdout=DEVNULL,
        stderr=PIPE,
        env={**os.environ, "HOME": str(folder)},
        start_new_session=True,
    )
    try:
        async with connect(await _address(process), max_size=None) as socket:
            await socket.send(
                json.dumps({"id": 0, "method": "Target.createTarget", "params": {"url": "about:blank"}})
            )
            target = await _answer(socket, 0)
            attach = {"targetId": target["targetId"], "flatten": True}
            await socket.send(json.dumps({"id": 1, "method": "Target.attachToTarget", "params": attach}))
            page = Page(socket=socket, session=(await _answer(socket, 1))["sessionId"], numbers=count(2))
            for domain in ("Page", "Runtime", "Log", "Network"):
                await page.send(f"{domain}.enable")
            yield page
            await socket.send(json.dumps({"id": -1, "method": "Browser.close"}))
    finally:
        try:
            async with asyncio.timeout(10):
                await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    said = b""
    async with asyncio.timeout(60):
        async for line in process.stderr:
            said += line
            if found := re.search(rb"DevTools listening on (ws://\S+)", line):
                return found[1].decode()
    raise AssertionError(said.decode(errors="replace"))


async def _answer(socket: ClientConnection, number: int) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            message = json.loads(await socket.recv())
            if message.get("id") == number:
                result: dict[str, Any] = message["result"]
                return result
