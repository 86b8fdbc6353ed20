"""`runbook pr`: the same steps by hand, and what a person reads when one cannot be done."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.cli import main
from flows.cli.json_objects import PullRequest
from flows.cli.json_reference import documented_keys
from tests.integration.forge.hubs import Hub
from tests.integration.forge.stand_in import Fault

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A forge of its own, whose people are not waited for."""
    with Hub.make(tmp_path) as made:
        with made.file.open("a", encoding="utf-8") as file:
            file.write("review_seconds = 0.1\n")
        yield made


@pytest.fixture
def pr(hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command as `runbook pr` does, and return its exit code, stdout and stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        clone = ("--repository", str(hub.clone.folder))
        monkeypatch.setattr(sys, "argv", ["runbook", "pr", *words, "-e", str(hub.file), *clone])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def opened(hub: Hub, pr: Run) -> str:
    """A commit whose pull request is open and not yet approved."""
    commit = hub.work()
    hub.forge.run(commit, "completed", "success", id=77)
    assert pr("open", "HEAD", "--yes")[0] == 0
    return commit


def test_the_steps_by_hand_end_with_the_commit_to_release(hub: Hub, pr: Run) -> None:
    """show, open, wait, merge; each says what comes next, and a second merge only says what was made."""
    commit = hub.work()
    hub.forge.run(commit, "completed", "success", id=77)
    code, out, _ = pr("show", "HEAD")
    assert (code, hub.bare.tip("develop")) == (5, hub.first), out
    hub.clone.push(commit, "develop")
    code, out, _ = pr("show")
    assert (code, "no pull request yet: `runbook pr open" in out) == (0, True), out
    plan = out.split()[1]
    code, out, _ = pr("open", "HEAD", "--yes", "--reason", "the books")
    assert (code, f"plan {plan}" in out, "missing   pull request 1 needs 1 more approval" in out) == (
        0,
        True,
        True,
    ), out
    assert pr("wait")[0] == 4
    hub.make_good(commit)
    assert pr("wait")[0] == 0
    code, out, _ = pr("merge", "--plan", plan, "--yes")
    merged = hub.bare.tip("main")
    assert (code, f"Release it: `runbook release {merged} -e" in out) == (0, True), out
    again = pr("merge", commit, "--yes")
    assert (again[0], f"`runbook release {merged} -e" in again[1]) == (0, True), again
    assert hub.forge.count("PUT", "/merge") == 1


def test_json_has_the_documented_keys_and_nothing_else_on_stdout(hub: Hub, pr: Run, opened: str) -> None:
    """Before the merge and after it; what a person reads is on stderr."""
    hub.make_good(opened)
    for words, state in ((("show",), "open"), (("merge", "--yes"), "merged"), (("merge", opened), "merged")):
        code, out, _ = pr(*words, "--json")
        [line] = out.splitlines()
        found = json.loads(line)
        assert (code, found["state"], found["head"], found["number"]) == (0, state, opened, 1)
        assert set(found) == documented_keys(PullRequest)
    assert found["merged"]["commit"] == hub.bare.tip("main")


@pytest.mark.parametrize("words", [("open", "HEAD"), ("merge",)])
def test_nothing_changes_without_consent(hub: Hub, pr: Run, opened: str, words: tuple[str, ...]) -> None:
    """No terminal and no --yes is no consent; --json neither."""
    hub.make_good(opened)
    before = [each for each in hub.forge.asked if not each.startswith("GET")]
    for more in ((), ("--json",)):
        code, _, errors = pr(*words, *more)
        assert (code, "not confirmed" in errors) == (5, True), errors
    assert [each for each in hub.forge.asked if not each.startswith("GET")] == before


def test_a_merge_without_a_revision_is_of_what_was_planned(hub: Hub, pr: Run, opened: str) -> None:
    """Not of what somebody has pushed since, whoever approved that."""
    later = hub.work(3)
    hub.clone.push(later, "develop")
    hub.make_good(later)
    code, _, errors = pr("merge", "--yes")
    assert code == 5
    assert f"would merge {later[:7]}, and {opened[:7]} was planned" in errors
    assert hub.bare.tip("main") == hub.first


@pytest.mark.parametrize("how", ["another hash", "other rules", "no plan of ours"])
def test_an_outdated_plan_is_not_merged(hub: Hub, pr: Run, opened: str, how: str) -> None:
    """The hash binds what is merged and by which rules."""
    hub.make_good(opened)
    words = ["merge", "--yes"]
    if how == "another hash":
        words += ["--plan", "0" * 12]
    elif how == "other rules":
        text = hub.file.read_text(encoding="utf-8")
        hub.file.write_text(text + "approvals = 0\n", encoding="utf-8")
    else:
        hub.forge.pulls[0].body = "written by hand"
    code, _, errors = pr(*words)
    assert (code, "Run `runbook pr open -e" in errors) == (5, True), errors
    assert hub.bare.tip("main") == hub.first


def test_open_describes_a_pull_request_of_a_person_anew(hub: Hub, pr: Run, opened: str) -> None:
    """One that was opened in the browser is used; an unchanged description is not written again."""
    hub.forge.pulls[0].body = "written by hand"
    for _ in range(2):
        assert pr("open", "HEAD", "--yes")[0] == 0
    assert (hub.forge.count("PATCH", ""), len(hub.forge.pulls)) == (1, 1)
    assert opened in hub.forge.pulls[0].body


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("merge", "--yes"), "there is no pull request for"),
        (("show", "no-such-branch"), "is no clone that has no-such-branch"),
        (("show", "--upload-pack=x"), "No such option"),
    ],
)
def test_what_cannot_be_meant_is_refused(pr: Run, words: tuple[str, ...], said: str) -> None:
    """One sentence, and 5."""
    code, _, errors = pr(*words)
    assert (code, said in errors) == (5, True), errors


def test_a_fault_that_may_pass_is_one(hub: Hub, pr: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """1, with the forge's name."""
    monkeypatch.setattr("handlers.forge.calls._PAUSE_FIRST_SECONDS", 0.01)
    hub.forge.faults.append(Fault(method="GET", path="/git/ref", status=503, times=1000))
    code, _, errors = pr("show")
    assert (code, "answered 503 when asked to show the branch develop" in errors) == (1, True), errors


def test_without_the_extra_it_says_how_to_install_it(pr: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """No traceback of an import."""
    monkeypatch.setitem(sys.modules, "githubkit", None)
    code, _, errors = pr("show")
    assert (code, "install it with pip install 'tds-runbook[forge]'" in errors) == (5, True), errors


def test_without_a_forge_it_names_the_page(hub: Hub, pr: Run) -> None:
    """And nothing else is tried."""
    text = hub.file.read_text(encoding="utf-8")
    hub.file.write_text(text.partition("[forge]")[0], encoding="utf-8")
    code, _, errors = pr("show")
    assert (code, "production has no forge: add [forge] to its file" in errors) == (5, True), errors


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('api_url = "http://127.0.0.1', 'api_url = "http://forge.example', "must begin with https://"),
        ('api_url = "http://', 'api_url = "https://me:secret@', "must be an address alone"),
        ('repository = "example-org/erp"', 'repository = "erp"', "forge.repository"),
        ('workflows = ["ci.yml"]', 'head_branch = "main"', "it is deploy.branch itself"),
        ('workflows = ["ci.yml"]', 'head_branch = "--all"', "is not a branch's name"),
        ("poll_seconds = 0.05", "poll_second = 0.05", "poll_seconds"),
    ],
)
def test_a_wrong_key_is_named_and_no_secret_is_printed(
    hub: Hub, pr: Run, old: str, new: str, said: str
) -> None:
    """Above all no address without TLS: the token would be sent there."""
    text = hub.file.read_text(encoding="utf-8")
    assert old in text
    hub.file.write_text(text.replace(old, new), encoding="utf-8")
    code, _, errors = pr("show")
    assert (code, said in errors, "secret" in errors) == (5, True, False), errors
