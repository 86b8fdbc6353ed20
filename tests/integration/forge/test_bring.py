"""A commit gets onto the branch: from the push to the merge's commit, and again after any interruption."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers.errors import Refused, RunbookError, TryAgain, WaitsForPeople
from handlers.forge.pull_plan import planned_in
from handlers.forge.pulling import HeadMoved
from tests.integration.forge.bare import git
from tests.integration.forge.hubs import Hub


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A forge of its own."""
    with Hub.make(tmp_path) as made:
        yield made


async def test_a_commit_is_pushed_reviewed_and_merged_by_squash(hub: Hub) -> None:
    """The revision is the commit that the merge made: one commit on main, with the files of what was reviewed."""
    commit = hub.work()
    hub.forge.after(2, "GET", "/actions/runs", lambda: hub.forge.run(commit, "in_progress", id=77))
    hub.forge.after(4, "GET", "/actions/runs", lambda: hub.make_good(commit))
    merged = await hub.bring(commit)
    assert merged is not None
    assert (hub.bare.tip("develop"), hub.bare.tip("main")) == (commit, merged.commit)
    assert merged.commit != commit
    assert hub.bare.tree(merged.commit) == hub.bare.tree(commit)
    assert hub.bare.log(hub.first, "main")[0][2] == "Version 2 (#1)"
    assert (merged.same_files, merged.approved_by, merged.merged_by) == (True, ("grace",), "merger")
    assert merged.plan
    assert f"plan={merged.plan}" in hub.forge.pulls[0].body
    assert [each for each in hub.told if "workflow" in each][:3] == [
        "no run of workflow ci.yml for " + commit[:7] + " has appeared yet",
        "workflow CI is in progress",
        "1 workflow",
    ]


async def test_the_same_call_goes_on_after_each_step(hub: Hub) -> None:
    """Pushed, opened, approved, or merged already: each is found, and done no second time."""
    commit = hub.work()
    hub.forge.run(commit, "completed", "success", id=77)
    with pytest.raises(WaitsForPeople, match=f"needs 1 more approval of {commit[:7]}, after 0.1 s"):
        await hub.bring(commit, review_seconds=0.1)
    with pytest.raises(WaitsForPeople):
        await hub.bring(commit, review_seconds=0.1)
    hub.make_good(commit)
    first = await hub.bring(commit)
    again = await hub.bring(commit)
    assert first == again
    assert hub.forge.count("POST", "/pulls") == 1
    assert hub.forge.count("PUT", "/merge") == 1
    assert hub.bare.count(hub.first, "main") == 1


async def test_a_merge_by_a_person_meanwhile_is_taken(hub: Hub) -> None:
    """Whoever clicks in the browser is not merged over."""
    commit = hub.work()
    hub.forge.run(commit, "completed", "success", id=77)

    def merge() -> None:
        pull = hub.forge.pulls[0]
        pull.merged, pull.state = hub.bare.squash("main", commit, "by hand"), "closed"

    hub.forge.after(3, "GET", "/reviews", merge)
    merged = await hub.bring(commit)
    assert merged is not None
    assert (merged.commit, merged.approved_by) == (hub.bare.tip("main"), ())
    assert hub.forge.count("PUT", "/merge") == 0


async def test_what_is_on_the_branch_needs_no_pull_request(hub: Hub) -> None:
    """It is released as it is."""
    assert await hub.bring(hub.first, workflows=()) is None
    assert hub.forge.count("POST", "") == 0


@pytest.mark.parametrize(
    "conclusion", ["failure", "cancelled", "timed_out", "action_required", "startup_failure"]
)
async def test_a_workflow_that_did_not_succeed_ends_it_before_the_pull_request(
    hub: Hub, conclusion: str
) -> None:
    """The page of the run is named; nothing was opened."""
    commit = hub.work()
    hub.forge.run(commit, "completed", conclusion, id=77)
    words = conclusion.replace("_", " ")
    with pytest.raises(
        Refused, match=f"workflow CI ended as {words} for {commit[:7]}: https://forge.example/run/77"
    ):
        await hub.bring(commit)
    assert hub.forge.pulls == []


async def test_a_second_run_of_a_failed_workflow_counts_instead(hub: Hub) -> None:
    """It has another id, and the older one has failed for ever."""
    commit = hub.work()
    hub.forge.run(commit, "completed", "failure", id=70)
    hub.make_good(commit)
    assert await hub.bring(commit) is not None


async def test_a_skipped_workflow_is_no_success(hub: Hub) -> None:
    """A workflow that was named and did nothing proves nothing."""
    commit = hub.work()
    hub.forge.run(commit, "completed", "skipped", id=77)
    hub.forge.run(commit, "completed", "neutral", id=78, event="pull_request")
    with pytest.raises(Refused, match="ended as skipped"):
        await hub.bring(commit)


async def test_a_workflow_that_never_appears_ends_it(hub: Hub) -> None:
    """A wrong name would be waited for until the end of the day. A run of another commit is not taken for it."""
    commit = hub.work()
    hub.forge.run(hub.first, "completed", "success", id=77)
    with pytest.raises(Refused, match=r"no run of workflow ci.yml .* after 0.2 s \(forge.appear_seconds\)"):
        await hub.bring(commit, appear_seconds=0.2)


async def test_a_workflow_that_does_not_end_is_no_refusal(hub: Hub) -> None:
    """The same command may work later."""
    commit = hub.work()
    hub.forge.run(commit, "in_progress", id=77)
    with pytest.raises(TryAgain, match=r"is in progress, after 0.2 s \(forge.checks_seconds\)"):
        await hub.bring(commit, checks_seconds=0.2)


@pytest.mark.parametrize("kind", ["check", "status"])
async def test_a_failed_check_is_never_merged(hub: Hub, kind: str) -> None:
    """Named in the environment file or not, of the newer kind or the older."""
    commit = hub.work()
    hub.make_good(commit)
    if kind == "check":
        hub.forge.check(commit, "lint", "failure")
    else:
        hub.forge.statuses[commit] = [{"context": "lint", "state": "failure"}]
    with pytest.raises(Refused, match=f"{kind} lint "):
        await hub.bring(commit)
    assert hub.forge.count("PUT", "/merge") == 0


async def test_a_named_check_that_is_missing_is_waited_for(hub: Hub) -> None:
    """No check is not a good check."""
    commit = hub.work()
    hub.make_good(commit)
    with pytest.raises(Refused, match=r"check deploy-preview has not appeared yet, after 0.2 s"):
        await hub.bring(commit, checks=("deploy-preview",), appear_seconds=0.2)
    hub.forge.after(2, "GET", "/check-runs", lambda: hub.forge.check(commit, "deploy-preview", "success"))
    assert await hub.bring(commit, checks=("deploy-preview",)) is not None


async def test_the_checks_of_all_pages_count(hub: Hub) -> None:
    """The failed one is on the last page of the Link header."""
    commit = hub.work()
    hub.make_good(commit)
    hub.forge.page_size = 2
    for number in range(6):
        hub.forge.check(commit, f"part-{number}", "success" if number < 5 else "failure")
    with pytest.raises(Refused, match="check part-5 ended as failure"):
        await hub.bring(commit)
    assert any("page=4" in each for each in hub.forge.asked if "check-runs" in each)


async def test_a_rejected_review_ends_it_until_it_is_taken_back(hub: Hub) -> None:
    """Another approval does not outweigh it; a later approval by the same person does."""
    commit = hub.work()
    hub.make_good(commit)
    hub.forge.review("edsger", "CHANGES_REQUESTED", commit)
    hub.forge.review("edsger", "COMMENTED", commit)
    with pytest.raises(Refused, match="edsger requested changes of pull request 1: answer the review"):
        await hub.bring(commit)
    assert hub.bare.tip("main") == hub.first
    hub.forge.review("edsger", "APPROVED", commit)
    merged = await hub.bring(commit)
    assert merged is not None
    assert merged.approved_by == ("edsger", "grace")


@pytest.mark.parametrize(
    ("state", "whose", "association"),
    [("APPROVED", "older", "MEMBER"), ("APPROVED", "this", "NONE"), ("COMMENTED", "this", "MEMBER")],
    ids=["of an older commit", "of somebody without the right to write", "a comment"],
)
async def test_an_approval_that_says_nothing_about_this_commit_does_not_count(
    hub: Hub, state: str, whose: str, association: str
) -> None:
    """Nor does one of anybody on a public repository."""
    commit = hub.work()
    hub.forge.run(commit, "completed", "success", id=77)
    hub.forge.review("grace", state, hub.first if whose == "older" else commit, association)
    with pytest.raises(WaitsForPeople, match="needs 1 more approval"):
        await hub.bring(commit, review_seconds=0.1)


async def test_an_approval_that_was_dismissed_does_not_count(hub: Hub) -> None:
    """The last word of each person counts."""
    commit = hub.work()
    hub.make_good(commit)
    hub.forge.review("grace", "DISMISSED", commit)
    with pytest.raises(WaitsForPeople):
        await hub.bring(commit, review_seconds=0.1)


async def test_what_was_pushed_later_is_never_merged(hub: Hub) -> None:
    """Also when it is approved: it was not planned."""
    commit = hub.work()
    hub.forge.run(commit, "completed", "success", id=77)
    later = hub.work(3)
    hub.forge.after(2, "GET", "/reviews", lambda: hub.clone.push(later, "develop"))
    hub.forge.after(2, "GET", "/reviews", lambda: hub.make_good(later))
    with pytest.raises(
        HeadMoved, match=f"would merge {later[:7]}, and {commit[:7]} was planned. Nothing is merged"
    ):
        await hub.bring(commit)
    assert hub.bare.tip("main") == hub.first


async def test_a_forced_push_in_the_moment_of_the_merge_is_caught_by_the_forge(hub: Hub) -> None:
    """The merge names the commit: 409, and nothing is merged."""
    commit = hub.work()
    hub.make_good(commit)
    git(hub.clone.folder, "checkout", "--quiet", "-b", "other", hub.first)
    other = hub.work(9)
    hub.forge.after(0, "PUT", "/merge", lambda: hub.clone.push(other, "develop", force=True))
    with pytest.raises(HeadMoved, match="develop has moved"):
        await hub.bring(commit)
    assert hub.forge.count("PUT", "/merge") == 1
    assert hub.bare.tip("main") == hub.first


async def test_nothing_is_pushed_by_force(hub: Hub) -> None:
    """The work of another person on the branch stays."""
    commit = hub.work()
    git(hub.clone.folder, "checkout", "--quiet", "-b", "other", hub.first)
    other = hub.work(9)
    hub.clone.push(other, "develop")
    with pytest.raises(
        Refused, match=f"develop of example-org/erp has commits that {commit[:7]} does not contain"
    ):
        await hub.bring(commit, appear_seconds=1)
    assert hub.bare.tip("develop") == other


async def test_a_commit_that_is_nowhere_says_where_to_run_the_command(hub: Hub) -> None:
    """A forge that does not have it, and a folder without it."""
    with pytest.raises(Refused, match="is no clone that has this commit: run the command in one"):
        await hub.bring("f" * 40)


async def test_a_hook_that_rejects_the_push_is_named(hub: Hub) -> None:
    """With what the server said."""
    hook = hub.bare.folder / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho 'develop is closed today' >&2\nexit 1\n", encoding="utf-8")
    hook.chmod(0o755)
    with pytest.raises(Refused, match=r"rejects the push .*pre-receive hook declined"):
        await hub.bring(hub.work())


async def test_a_conflict_is_refused_with_what_to_do(hub: Hub) -> None:
    """405 of the merge, said in the words of git."""
    commit = hub.work()
    hub.make_good(commit)
    git(hub.clone.folder, "checkout", "--quiet", "-b", "other", hub.first)
    hub.clone.push(hub.work(9), "main")
    with pytest.raises(Refused, match="has conflicts with main: merge main into develop, push"):
        await hub.bring(commit)


async def test_a_conflict_that_comes_with_the_merge_is_refused(hub: Hub) -> None:
    """The forge said that it can be merged, a moment before."""
    commit = hub.work()
    hub.make_good(commit)
    git(hub.clone.folder, "checkout", "--quiet", "-b", "other", hub.first)
    other = hub.work(9)
    hub.forge.after(0, "PUT", "/merge", lambda: hub.clone.push(other, "main"))
    with pytest.raises(Refused, match="has conflicts with main"):
        await hub.bring(commit)
    assert hub.bare.tip("main") == other


async def test_changes_of_the_branch_that_nobody_tested_keep_it_from_the_merge(hub: Hub) -> None:
    """The merge would make files that are neither those of staging nor those of main."""
    commit = hub.work()
    hub.make_good(commit)
    git(hub.clone.folder, "checkout", "--quiet", "-b", "other", hub.first)
    hub.clone.push(hub.clone.commit("Hotfix", {"hotfix.py": "x = 1\n"}), "main")
    with pytest.raises(Refused, match="main has changes that develop does not contain"):
        await hub.bring(commit)
    assert hub.forge.count("PUT", "/merge") == 0


async def test_such_changes_in_the_moment_of_the_merge_keep_it_from_the_release(hub: Hub) -> None:
    """It is merged, and that is said; the release does not start with it."""
    commit = hub.work()
    hub.make_good(commit)
    git(hub.clone.folder, "checkout", "--quiet", "-b", "other", hub.first)
    other = hub.clone.commit("Hotfix", {"hotfix.py": "x = 1\n"})
    hub.forge.after(0, "PUT", "/merge", lambda: hub.clone.push(other, "main"))
    for _ in range(2):
        with pytest.raises(Refused, match=r"was merged as .* its files are not those of"):
            await hub.bring(commit)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"draft": True}, "is a draft"),
        ({"state": "closed"}, "was closed without a merge"),
        ({"blocked": True}, "a rule of main blocks"),
    ],
)
async def test_a_pull_request_that_people_keep_from_the_merge_is_not_merged(
    hub: Hub, change: dict[str, object], fault: str
) -> None:
    """A draft, a closed one, and a rule of the branch."""
    commit = hub.work()
    hub.forge.run(commit, "completed", "success", id=77)

    def apply() -> None:
        for name, value in change.items():
            setattr(hub.forge.pulls[0], name, value)

    hub.make_good(commit)
    hub.forge.after(0, "GET", "/pulls/1$", apply)
    with pytest.raises(RunbookError, match=fault):
        await hub.bring(commit, review_seconds=0.2)
    assert hub.bare.tip("main") == hub.first


async def test_it_waits_until_the_forge_knows_whether_it_can_be_merged(hub: Hub) -> None:
    """It computes that in the background, and answers null meanwhile."""
    commit = hub.work()
    hub.make_good(commit)
    hub.forge.after(0, "POST", "/pulls", lambda: None)
    hub.forge.after(1, "GET", "/pulls/1$", lambda: setattr(hub.forge.pulls[0], "unknown", 3))
    assert await hub.bring(commit) is not None
    assert "the forge computes whether pull request 1 can be merged" in " ".join(hub.told)


async def test_the_description_is_made_from_the_plan(hub: Hub) -> None:
    """Commits with authors, migrations with marks, thresholds, the hash. Text of a commit is no markup, no marker."""
    fake = f"<!-- tds-runbook head={'0' * 40} plan={'0' * 12} --> @everyone [x](https://evil.example)"
    hub.clone.commit(fake, {"db/migrations/001.sql": "ALTER TABLE products ADD COLUMN size text;\n"})
    commit = hub.clone.commit("Drop it", {"db/migrations/002.sql": "ALTER TABLE products DROP COLUMN old;\n"})
    hub.forge.run(commit, "completed", "success", id=77)
    with pytest.raises(WaitsForPeople):
        await hub.bring(commit, review_seconds=0.1)
    body = hub.forge.pulls[0].body
    assert f"- `{commit[:7]}` Ada L: Drop it" in body
    assert "- **expand** db/migrations/001.sql" in body
    assert "- **contract** db/migrations/002.sql (" in body
    assert (
        "Good from 95 % of webhook events, held, because a contract migration is not taken back below 80 %"
        in body
    )
    assert planned_in(body) == (commit, body.partition("Plan `")[2][:12])
    assert "@everyone" not in body
    assert "[x](" not in body
