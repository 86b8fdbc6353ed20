"""The page as a server sees it: its parts, the token, the two actions, and what it must never show."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from board.access import COOKIE
from handlers.phases import approve
from handlers.queue.event import EntityType
from handlers.release.decisions import Verb
from handlers.release.ledger import approvals, releases, requests
from handlers.release.note import HostNote, PhaseNote
from handlers.release.phase import Phase, Release
from tests.integration.board.world import SENTINEL, TOKEN, World, board_of, world
from tests.integration.queue.events import event
from tests.integration.release.steps import plan_of

PARTS = (
    *(
        "head",
        "release",
        "alerts",
        "act",
        "hosts",
        "course",
        "checks",
        "queue",
        "decisions",
        "guard",
        "ledger",
    ),
    "evidence",
)
LINKS = re.compile(r"""(?:href|src|action)=["']([^"']+)["']""")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """Two environments for all tests: `staging` is probing a release."""
    async with world(tmp_path_factory.mktemp("page")) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client(here: World) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the board of both, without a token."""
    async with board_of(here.files) as client:
        yield client


async def page_of(client: httpx.AsyncClient, path: str = "/e/staging/") -> str:
    """A page that is good."""
    answer = await client.get(path, headers={"Accept": "text/html"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    return answer.text


def key_in(content: str) -> str:
    """The key of the forms of a page."""
    found = re.search(r'name="key" value="([^"]+)"', content)
    assert found is not None
    return found[1]


async def hold(client: httpx.AsyncClient, release: str, **fields: str) -> httpx.Response:
    """Send the form that holds a release."""
    form = {
        "key": key_in(await page_of(client)),
        "release": release,
        "by": "ops-b",
        "reason": "numbers look odd",
    }
    return await client.post("/e/staging/hold", data=form | fields)


async def current(here: World) -> Release:
    """The release that staging probes."""
    found = await releases.live(here.engine, "staging")
    assert found is not None
    return found


async def test_the_page_has_every_part(client: httpx.AsyncClient, here: World) -> None:
    """Phase strip, hosts, pictures, dead letters, decisions, guard, alerts, ledger, evidence."""
    content = await page_of(client)
    for _ in range(120):
        # On a busy machine a reading may come later than its limit: the page then says so, and leaves its part out.
        if (found := re.findall(r'data-part="(\w+)"', content)) == list(PARTS):
            break
        await asyncio.sleep(0.5)
        content = await page_of(client)
    assert found == list(PARTS)
    assert (await current(here)).id in content
    for word in (
        "no rate for item &lt;n&gt;",
        "upstream.away: it answers with 503",
        "Hold this release",
        "slow disk",
    ):
        assert word in content, word
    assert content.count("<figure>") == 3
    production = await page_of(client, "/e/production/")
    assert "HEALTHY" in production
    assert "Hold this release" not in production


async def test_the_page_says_what_the_release_waits_for_and_shows_each_step(
    client: httpx.AsyncClient, here: World
) -> None:
    """As the status view does: what runs on which host, and a restart is not called a fault."""
    host = HostNote(ok=False, note="no answer", needed=2)
    await releases.note(here.engine, await current(here), PhaseNote(hosts={"web-1": host}))
    async with asyncio.timeout(60):
        # The board reads from time to time.
        while "restarting" not in (content := await page_of(client)):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    assert re.search(r"<dt>Waits for</dt><dd>.* since \d\d:\d\d:\d\d: ", content)
    assert "The steps of probe on each host" in content
    assert re.search(r'<td>probe</td><td><span class="badge running">running</span>', content)
    assert '<span class="badge running">restarting</span>' in content
    assert "not ok</span>" not in content


async def test_nothing_comes_from_another_site(client: httpx.AsyncClient) -> None:
    """No style or script in the page itself either: the policy of the page would refuse them."""
    content = await page_of(client)
    assert {link for link in LINKS.findall(content) if not link.startswith(("/", "#"))} <= {""}
    assert not re.search(r"<style|style=|<script(?! src=\"/static/board.js\")|\son\w+=", content)
    for name, kind in (
        ("board.css", "text/css"),
        ("board.js", "text/javascript"),
        ("icon.svg", "image/svg+xml"),
    ):
        answer = await client.get(f"/static/{name}")
        assert answer.headers["content-type"].startswith(kind)
        assert "https://" not in answer.text
    for name in ("__init__.py", "nothing.css", "..%2Fserve.py"):
        assert (await client.get(f"/static/{name}")).status_code == 404, name


async def test_no_secret_and_no_payload_is_on_the_page(client: httpx.AsyncClient) -> None:
    """A sentence with a secret is shown masked."""
    content = await page_of(client)
    assert SENTINEL not in content
    assert "1 of 1 hosts, ***" in content
    assert "item now" not in content


async def test_what_an_error_says_is_text(client: httpx.AsyncClient, here: World) -> None:
    """An error that looks like a page does nothing."""
    died = {"status": "dead_letter", "attempt_count": 3, "started_at": "sql:now()"}
    nasty = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    await event(here.engine, "nasty", entity=EntityType.VENDOR, error_code="X", error_message=nasty, **died)
    async with board_of(here.files) as fresh:
        content = await page_of(fresh)
    assert "<script>alert" not in content
    assert "&lt;script&gt;alert" in content


async def test_an_older_release_can_be_looked_at_and_not_acted_on(
    client: httpx.AsyncClient, here: World
) -> None:
    """By its id in the ledger; one of another environment is not there."""
    older = await releases.latest(here.engine, "production")
    assert older is not None
    content = await page_of(client, f"/e/production/?release={older.id}")
    assert older.id in content
    for unknown in (older.id, "nonsense", "../x", "%00"):
        answer = await client.get(f"/e/staging/?release={unknown}")
        assert answer.status_code == 404, unknown
        assert "There is no such release" in answer.text
        assert "<script>" not in answer.text


async def test_the_overview_has_every_environment(client: httpx.AsyncClient, here: World) -> None:
    """With a link each; where there is one environment, its page is the first."""
    content = await page_of(client, "/")
    assert 'href="/e/production/"' in content
    assert "succeeded" in content
    async with board_of(here.files[1:]) as alone:
        assert (await alone.get("/")).headers["location"] == "/e/staging/"


async def test_who_has_no_session_is_asked_for_the_token(here: World) -> None:
    """A browser is led to the form; the cookie is for this site alone and no copy of the token."""
    async with board_of(here.files, TOKEN) as client:
        answer = await client.get("/e/staging/", headers={"Accept": "text/html"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
        form = await page_of(client, "/login")
        # Who is not in sees not even the names.
        assert "staging" not in form
        wrong = await client.post("/login", data={"token": "not-the-token"})
        assert wrong.status_code == 403
        assert "not the token" in wrong.text
        assert COOKIE not in wrong.headers.get("set-cookie", "")
        good = await client.post("/login", data={"token": TOKEN})
        assert good.status_code == 303
        cookie = good.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert TOKEN not in cookie
        content = await page_of(client)
        assert "Log out" in content
        assert (await client.post("/logout", data={"key": "x"})).status_code == 403
        assert (await client.post("/logout", data={"key": key_in(content)})).status_code == 303
        assert (await client.get("/e/staging/")).status_code == 401


@pytest.mark.parametrize(
    ("fields", "headers", "status", "said"),
    [
        ({"by": "  "}, {}, 409, "give your name"),
        ({"by": "x" * 81}, {}, 409, "give your name"),
        ({"by": "ops\x07"}, {}, 409, "give your name"),
        ({"reason": ""}, {}, 409, "give a reason"),
        ({"reason": "x" * 501}, {}, 409, "give a reason"),
        ({"reason": "x" * 20_000}, {}, 409, "more than 16384 bytes"),
        ({"release": "2020-01-01.1"}, {}, 409, "is not what runs now"),
        ({"release": ""}, {}, 409, "is no id of a release"),
        ({"release": "x\x00"}, {}, 409, "is no id of a release"),
        ({"key": ""}, {}, 403, "not valid any more"),
        ({"key": "forged"}, {}, 403, "not valid any more"),
        ({}, {"Origin": "https://evil.example.com"}, 403, "another site"),
        ({}, {"Sec-Fetch-Site": "cross-site"}, 403, "another site"),
    ],
)
async def test_a_form_that_is_not_good_changes_nothing(
    client: httpx.AsyncClient,
    here: World,
    fields: dict[str, str],
    headers: dict[str, str],
    status: int,
    said: str,
) -> None:
    """One sentence, and neither a request nor a hold in the ledger."""
    run = await current(here)
    form = {"key": key_in(await page_of(client)), "release": run.id, "by": "ops-b", "reason": "odd"} | fields
    answer = await client.post("/e/staging/hold", data=form, headers=headers)
    assert answer.status_code == status
    assert said in answer.text
    assert (await current(here)).phase is Phase.PROBING
    assert await requests.see(here.engine, run) == []


async def test_a_look_never_acts(client: httpx.AsyncClient) -> None:
    """The actions are forms: a link or a picture of another site starts none."""
    for path in ("/e/staging/hold", "/e/staging/approve"):
        assert (await client.get(path)).status_code == 405
    for path in ("/e/staging/", "/e/staging/queue", "/metrics"):
        assert (await client.post(path)).status_code == 405


async def test_a_plan_is_approved_by_its_hash_with_who_and_why(here: World) -> None:
    """The page shows the plan; the ledger has who approved it, why, and that it was here."""
    plan = plan_of("production", "c" * 40)
    settings = {"approval": {"needed": 1}}
    waiting = await releases.begin(here.engine, plan=replace(plan, settings=settings), requested_by="ops-a")
    stored = await releases.plan(here.engine, waiting.id)
    async with here.engine.begin() as tx:
        await approve.ask(tx, waiting, stored, starts=False)
    async with board_of(here.files) as client:
        content = await page_of(client, "/e/production/")
        assert f"<code>{stored.hash}</code>" in content
        form = {
            "key": key_in(content),
            "release": waiting.id,
            "by": "ops-b",
            "reason": "tested",
            "plan": stored.hash,
        }
        for wrong, said in (
            ({"by": "ops-a"}, "somebody else must approve it"),
            ({"plan": "0" * 64}, "is not what waits"),
            ({"reason": " "}, "give a reason"),
        ):
            answer = await client.post("/e/production/approve", data=form | wrong)
            assert answer.status_code == 409, answer.text
            assert said in answer.text
        assert await approvals.given(here.engine, waiting.id) == []
        answer = await client.post("/e/production/approve", data=form)
        assert answer.status_code == 200, answer.text
        assert "approved by" in answer.text
    [given] = await approvals.given(here.engine, waiting.id)
    assert (given.person, given.reason) == ("ops-b", "tested")
    assert (await releases.get(here.engine, waiting.id)).phase is Phase.APPROVED


async def test_a_hold_asks_the_living_controller(
    client: httpx.AsyncClient, here: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The request is in the ledger with who and why; its controller has not read it, and that is said."""
    run = await current(here)
    with caplog.at_level(logging.WARNING):
        answer = await hold(client, run.id)
    assert answer.status_code == 200, answer.text
    assert "the request is in the ledger" in answer.text
    [request] = await requests.see(here.engine, run)
    assert (request.verb, request.requested_by, request.reason) == (Verb.HOLD, "ops-b", "numbers look odd")
    assert f"hold of release {run.id} by ops-b: numbers look odd" in caplog.text


async def test_the_stream_says_when_there_is_a_new_reading(here: World) -> None:
    """Each reading is a line of the stream; the end of the board ends it."""
    async with board_of(here.files) as client, client.stream("GET", "/e/staging/live") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        async with asyncio.timeout(60):
            seen: list[str] = []
            async for line in stream.aiter_lines():
                seen += [line] if line.startswith("data:") else []
                if len(seen) == 2:
                    break
        assert len(set(seen)) == 2


async def test_without_the_database_the_page_says_so(here: World, tmp_path: Path) -> None:
    """The page is there, with the reason in each part, and no number."""
    path = tmp_path / "away.toml"
    good = Path(here.files[1]).read_text(encoding="utf-8").replace("staging", "away")
    path.write_text(re.sub(r"@127\.0\.0\.1:\d+/", "@127.0.0.1:1/", good), encoding="utf-8")
    async with board_of([str(path)]) as client:
        content = await page_of(client, "/e/away/")
    assert "cannot be read" in content
    assert content.count("does not answer") > 5
    assert "Nothing is broken" not in content
