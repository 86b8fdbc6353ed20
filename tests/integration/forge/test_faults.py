"""The forge has a fault, limits the rate, or refuses: what is repeated, and what one sentence says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers.errors import Refused, TryAgain
from handlers.forge import calls
from tests.integration.forge.hubs import Hub
from tests.integration.forge.stand_in import Fault, reset_in


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A forge of its own; a pause between two tries is short."""
    monkeypatch.setattr(calls, "_PAUSE_FIRST_SECONDS", 0.01)
    with Hub.make(tmp_path) as made:
        yield made


@pytest.fixture
def ready(hub: Hub) -> str:
    """A commit that may be merged once it is pushed."""
    commit = hub.work()
    hub.make_good(commit)
    return commit


@pytest.mark.parametrize(
    "path", ["/git/ref", "/actions/runs", "/compare", "/pulls$", "/pulls/1$", "/reviews"]
)
@pytest.mark.parametrize("status", [0, 500, 502, 503])
async def test_a_fault_of_any_question_is_asked_again(hub: Hub, ready: str, path: str, status: int) -> None:
    """A cut connection (0) and 5xx, three times in a row."""
    hub.forge.faults.append(Fault(method="GET", path=path, status=status, times=3))
    assert await hub.bring(ready) is not None
    assert hub.forge.faults == []
    assert any("asking again" in each for each in hub.told)


async def test_a_lasting_fault_ends_it_as_one_that_may_pass(hub: Hub, ready: str) -> None:
    """After six tries; the exit code is 1."""
    hub.forge.faults.append(Fault(method="GET", path="/pulls$", status=502, times=1000))
    with pytest.raises(TryAgain, match="answered 502 when asked to list the pull requests, 6 times in a row"):
        await hub.bring(ready)
    assert hub.forge.count("GET", "/pulls$|/pulls[?]") == calls.TRIES


async def test_a_forge_that_does_not_answer_in_time_is_asked_again(hub: Hub, ready: str) -> None:
    """A timeout is forge.answer_seconds."""
    hub.forge.faults.append(Fault(method="GET", path="/reviews", silent_seconds=3))
    assert await hub.bring(ready, answer_seconds=1) is not None
    assert any("no answer in time" in each for each in hub.told), hub.told


@pytest.mark.parametrize("status", [0, 502])
@pytest.mark.parametrize("done", [True, False], ids=["after it was merged", "before it was merged"])
async def test_a_merge_whose_answer_was_lost_is_looked_at_and_never_made_twice(
    hub: Hub, ready: str, status: int, done: bool
) -> None:
    """Merged: its commit is taken. Not merged: it is merged then."""
    hub.forge.faults.append(Fault(method="PUT", path="/merge", status=status, done=done))
    merged = await hub.bring(ready)
    assert merged is not None
    assert merged.commit == hub.bare.tip("main")
    assert hub.bare.count(hub.first, "main") == 1
    assert hub.forge.count("PUT", "/merge") == (1 if done else 2)


async def test_merges_without_an_answer_end_as_a_fault_that_may_pass(hub: Hub, ready: str) -> None:
    """Nothing was merged, and the same command goes on."""
    hub.forge.faults.append(Fault(method="PUT", path="/merge", status=502, times=calls.TRIES))
    with pytest.raises(TryAgain, match="did not merge pull request 1, 6 times in a row without an answer"):
        await hub.bring(ready)
    assert await hub.bring(ready) is not None


@pytest.mark.parametrize("status", [0, 500])
@pytest.mark.parametrize("done", [True, False], ids=["after it was opened", "before it was opened"])
async def test_a_pull_request_whose_answer_was_lost_is_not_opened_twice(
    hub: Hub, ready: str, status: int, done: bool
) -> None:
    """What is there is used. Otherwise it ends as a fault, and the same command opens it."""
    hub.forge.faults.append(Fault(method="POST", path="/pulls", status=status, done=done))
    if not done:
        with pytest.raises(TryAgain, match="when asked to open a pull request"):
            await hub.bring(ready)
    assert await hub.bring(ready) is not None
    assert len(hub.forge.pulls) == 1


@pytest.mark.parametrize("status", [403, 429])
async def test_a_limit_is_waited_out_as_long_as_the_forge_asks(hub: Hub, ready: str, status: int) -> None:
    """The person hears for how long."""
    hub.forge.faults.append(Fault(method="GET", path="/reviews", status=status, headers={"retry-after": "1"}))
    assert await hub.bring(ready) is not None
    assert any("limits the rate of calls; waiting 1 s, as it asks" in each for each in hub.told)


async def test_a_long_limit_is_told_again_and_again(
    hub: Hub, ready: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits minutes before a silent terminal; each line says how much is left."""
    monkeypatch.setattr(calls, "TOLD_SECONDS", 1.0)
    hub.forge.faults.append(Fault(method="GET", path="/reviews", status=429, headers={"retry-after": "3"}))
    assert await hub.bring(ready) is not None
    told = [each for each in hub.told if "limits the rate" in each]
    assert [each.partition("waiting ")[2].partition(",")[0] for each in told] == ["3 s", "2 s", "1 s"]


async def test_the_end_of_a_limit_is_a_time_of_the_forge(hub: Hub, ready: str) -> None:
    """Its clock may be an hour from ours: the date of the answer counts. A merge is asked again: it was not done."""
    hub.forge.faults.append(Fault(method="PUT", path="/merge", status=403, headers=reset_in(1)))
    assert await hub.bring(ready, rate_limit_seconds=30) is not None
    assert any("waiting 2 s, as it asks" in each for each in hub.told)


async def test_a_limit_beyond_the_bound_ends_it(hub: Hub, ready: str) -> None:
    """Nobody waits an hour unasked; the sentence says for how long it would be."""
    hub.forge.faults.append(Fault(method="GET", path="/compare", status=429, headers={"retry-after": "3500"}))
    with pytest.raises(TryAgain, match=r"in 3500 s; forge.rate_limit_seconds allows 900 s in all"):
        await hub.bring(ready)


async def test_a_limit_that_does_not_end_is_bounded_in_all(hub: Hub, ready: str) -> None:
    """Waits add up."""
    hub.forge.faults.append(
        Fault(method="GET", path="/compare", status=403, times=1000, headers={"retry-after": "1"})
    )
    with pytest.raises(TryAgain, match="limits the rate of calls"):
        await hub.bring(ready, rate_limit_seconds=2)
    assert hub.forge.count("GET", "/compare") == 3


async def test_a_wrong_token_is_named_by_its_reference(hub: Hub, ready: str) -> None:
    """Never by its text."""
    token = hub.file.with_name("token")
    token.write_text("another-token\n", encoding="utf-8")
    with pytest.raises(
        Refused, match=rf"refuses the token of forge.token \(file:{token}\): it is wrong, expired"
    ) as error:
        await hub.bring(ready)
    assert "another-token" not in str(error.value)


async def test_a_missing_right_is_named_as_the_forge_names_it(hub: Hub, ready: str) -> None:
    """403 without a limit: no waiting helps, and nothing is repeated."""
    headers = {"x-accepted-github-permissions": "contents=write; contents=write,workflows=write"}
    said = "Resource not accessible by personal access token"
    hub.forge.faults.append(Fault(method="PUT", path="/merge", status=403, message=said, headers=headers))
    with pytest.raises(
        Refused, match=r"merge pull request 1: give it the right contents: write on example-org/erp \(Res"
    ):
        await hub.bring(ready)
    assert hub.forge.count("PUT", "/merge") == 1


async def test_a_repository_that_the_token_may_not_see_is_told_from_a_missing_branch(
    hub: Hub, ready: str
) -> None:
    """GitHub answers 404 to both."""
    with pytest.raises(
        Refused, match=r"no such thing in example-org/other, or the token .* Check forge.repository"
    ):
        await hub.bring(ready, repository="example-org/other")


async def test_an_address_that_is_no_forge_is_named(hub: Hub, ready: str) -> None:
    """A JSON of another kind."""
    with pytest.raises(Refused, match=r"forge.repository|forge.api_url"):
        await hub.bring(ready, api_url=f"{hub.forge.url}/api/v9")
    hub.forge.problems.clear()


async def test_polling_costs_the_limit_nothing(hub: Hub, ready: str) -> None:
    """Unchanged answers are 304 by their ETag, which GitHub does not count."""
    hub.forge.reviews.clear()
    hub.forge.after(8, "GET", "/reviews", lambda: hub.forge.review("grace", "APPROVED", ready))
    assert await hub.bring(ready) is not None
    assert hub.forge.served_304 > 10


async def test_no_token_is_in_what_a_person_or_a_log_gets(
    hub: Hub, ready: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes wrong."""
    caplog.set_level("DEBUG")
    hub.forge.faults.append(Fault(method="GET", path="/pulls$", status=502, times=1000))
    with pytest.raises(TryAgain) as error:
        await hub.bring(ready)
    texts = [*hub.told, caplog.text, repr(error.value), repr(error.value.__cause__), *hub.forge.asked]
    assert [each for each in texts if "a-token-of-the-tests" in each] == []
