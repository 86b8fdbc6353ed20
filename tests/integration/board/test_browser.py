"""The page in a real browser: at three widths, light and dark, live, by keyboard, and readable for everybody."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text

from handlers.release.ledger import releases, requests
from handlers.release.phase import Phase, Release, Verdict
from tests.integration.board.browser import Page, browser
from tests.integration.board.world import TOKEN, World, board_of, world

WIDTHS = {"desk": 1400, "tablet": 768, "phone": 360}
AXE = os.environ.get("AXE_CORE", "")
"""The file axe.min.js of the package axe-core."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def page(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Page]:
    """One tab for all tests; without Chromium they are skipped before anything else is started."""
    async with browser(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def here(page: Page, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """Two environments for all tests; `staging` has a release that somebody carries."""
    async with world(tmp_path_factory.mktemp("seen")) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def board(here: World) -> AsyncIterator[str]:
    """The address of a board without a token."""
    async with board_of(here.files) as client:
        yield address_of(client)


def address_of(client: httpx.AsyncClient) -> str:
    return str(client.base_url).rstrip("/")


async def carried(here: World) -> Release:
    """The live release of staging, which its controller carries."""
    async with here.engine.begin() as tx:
        await tx.execute(
            text(
                "UPDATE runbook.lock SET heartbeat_at = clock_timestamp(), "
                "expires_at = clock_timestamp() + interval '1 hour'"
            )
        )
    run = await releases.live(here.engine, "staging")
    assert run is not None
    return run


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
async def test_the_page_fits_and_nothing_is_refused(
    page: Page, board: str, tmp_path: Path, width: int, dark: bool
) -> None:
    """No sideways scrolling of the page, no error of a script or of its own policy, and no other site."""
    await page.look(width, dark=dark)
    for path in ("/", "/e/staging/", "/e/production/"):
        await page.open(board + path)
        assert await page.run("document.documentElement.scrollWidth") <= width, path
        ground = await page.run("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, ground[4:-1].split(","))) < 384) is dark
    await page.picture(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000
    assert page.complaints() == []
    assert {address for address in page.addresses() if not address.startswith((board, "about:"))} == set()


async def test_the_page_follows_the_release_by_itself(page: Page, board: str, here: World) -> None:
    """A new phase is there without a reload; what was opened stays open, and what is typed stays."""
    run = await carried(here)
    await page.look(1400)
    await page.open(f"{board}/e/staging/")
    await page.until("document.getElementById('connection').textContent === 'live'")
    await page.run("document.getElementById('phases').open = true; window.same = true")
    await page.run("document.getElementById('hold-reason').focus()")
    await page.type("half a sentence")
    await releases.enter(
        here.engine, run, Phase.CANARY, verdict=Verdict.PASS, sentence="1 of 1 hosts are good"
    )
    await page.until("""document.querySelector('[data-part="head"] .badge').textContent === 'canary'""", 90)
    await page.until("""document.querySelector('[data-part="ledger"]').textContent.includes('are good')""")
    assert await page.run("window.same && document.getElementById('phases').open")
    assert await page.run("document.getElementById('hold-reason').value") == "half a sentence"


async def test_a_release_is_held_with_the_keyboard_alone(page: Page, board: str, here: World) -> None:
    """Skip to the content, along the page to the form, who and why, Enter: the request is in the ledger."""
    run = await carried(here)
    await page.open(f"{board}/e/staging/")
    await page.press("Tab")
    assert await page.run("document.activeElement.textContent") == "Skip to the content"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert await page.run(outline) != "none"
    for _ in range(60):
        if await page.run("document.activeElement.id") == "hold-by":
            break
        await page.press("Tab")
    assert await page.run("document.activeElement.id") == "hold-by"
    await page.type("ops-b")
    await page.press("Tab")
    await page.type("the numbers look odd")
    await page.press("Enter")
    await page.until("document.querySelector('h1')?.textContent === 'Hold'")
    assert "request is in the ledger" in await page.run("document.querySelector('[role=status]').textContent")
    [request] = await requests.see(here.engine, run)
    assert (request.requested_by, request.reason) == ("ops-b", "the numbers look odd")


async def test_a_person_logs_in_once(page: Page, here: World) -> None:
    """The form for the token leads to the page, which is live; its cookie is not for scripts."""
    async with board_of(here.files, TOKEN) as client:
        await page.open(f"{address_of(client)}/login")
        await page.run("document.querySelector('input[type=password]').focus()")
        await page.type(TOKEN)
        await page.press("Enter")
        await page.until("document.querySelector('h1')?.textContent === 'Environments'")
        await page.open(f"{address_of(client)}/e/staging/")
        await page.until("document.getElementById('connection').textContent === 'live'")
        assert await page.run("document.cookie") == ""
    await page.until("document.getElementById('connection').classList.contains('lost')", 90)


@pytest.mark.skipif(not AXE, reason="axe-core is missing: npm install axe-core, then AXE_CORE=…/axe.min.js")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1400, 360])
async def test_axe_finds_nothing(page: Page, board: str, here: World, width: int, dark: bool) -> None:
    """No violation of WCAG 2.2 A and AA, nor of the best practices."""
    await page.look(width, dark=dark)
    script = Path(AXE).read_text(encoding="utf-8")
    async with board_of(here.files, TOKEN) as locked:
        for address in (
            *(f"{board}{path}" for path in ("/", "/e/staging/", "/e/production/", "/e/staging/?release=x")),
            f"{address_of(locked)}/login",
        ):
            await page.open(address)
            await page.run("for (const each of document.querySelectorAll('details')) each.open = true")
            await page.run(f"{script}; true")
            found: dict[str, Any] = await page.run("axe.run()")
            violations = [
                f"{each['id']}: {each['nodes'][0]['html'][:120]} {each['nodes'][0].get('failureSummary', '')[:300]}"
                for each in found["violations"]
            ]
            assert violations == [], address
            assert len(found["passes"]) > 5
