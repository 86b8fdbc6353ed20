"""Commands as values: quoting, hidden secrets, the flag `changes`, and the refusal of invalid input."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.environment.model import Deploy, Services
from handlers.errors import Refused
from handlers.host import commands
from handlers.host.command import Command, Hidden
from handlers.host.sh import script

SHA = "4f2c9e1" + "0" * 33
DEPLOY = Deploy(directory=PurePosixPath("/srv/the erp"))
RELEASES = Deploy(directory=PurePosixPath("/srv/erp"), strategy="releases")
SERVICES = Services(web=("tsh-erp",), workers=("tsh-erp-workers",))


def run(command: Command) -> str:
    """How a real shell parses it."""
    return subprocess.run(["sh", "-c", command.script], check=True, capture_output=True, text=True).stdout


def test_words_are_joined_and_steps_stop_at_the_first_failure() -> None:
    """A command prints as typed, and a sequence is joined with &&."""
    command = Command("ln", "-sfn", PurePosixPath("releases/4f2c9e1"), "next").then(
        "mv", "-T", "next", "current"
    )
    assert str(command) == "ln -sfn releases/4f2c9e1 next && mv -T next current"


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_any_word_is_one_word(word: str) -> None:
    """Any text is parsed by the shell as the same single word."""
    assert shlex.split(Command("x", word).script) == ["x", word]


@pytest.mark.parametrize("word", ["it's", "$(id)", "`id`", "a b", "", "\n", "*", "~", "-e", "é", '"', "\\"])
def test_a_real_shell_reads_hostile_words_as_data(word: str) -> None:
    """The same, as an argument of a command and as a value of a procedure."""
    assert run(Command("printf", "[%s]", word)) == f"[{word}]"
    assert run(Command.procedure('printf "[%s]" "$1"', word, title="t")) == f"[{word}]"


def test_a_zero_byte_is_refused() -> None:
    """No shell accepts a NUL byte, so nothing is sent."""
    with pytest.raises(Refused):
        Command("echo", "a\0b")


def test_the_home_of_the_host_is_meant_only_by_a_path() -> None:
    """`~` in a path is the SSH user's home; in a plain word it is a letter."""
    assert Command("ls", PurePosixPath("~/a b")).script == "ls \"$HOME\"/'a b'"
    assert Command("ls", PurePosixPath("~")).script == 'ls "$HOME"'
    assert Command("ls", "~/a").script == "ls '~/a'"
    assert Command("ls", PurePosixPath("/a/~/b")).script == "ls '/a/~/b'"


def test_a_secret_is_sent_and_never_shown() -> None:
    """A hidden word is in the script and in nothing that is printed."""
    command = Command("login", Hidden("hunter2")).then("true")
    assert "hunter2" in command.script
    for shown in (str(command), repr(command), repr(Hidden("hunter2")), f"{command}"):
        assert "hunter2" not in shown
        assert "login" in shown or "***" in shown


def test_a_chain_changes_the_host_when_any_part_does() -> None:
    """A sequence with one changing command counts as changing, and is not retried automatically."""
    assert not Command("true").then("true").changes
    assert Command("true").then(Command("rm", "x", changes=True)).changes
    assert Command("rm", "x", changes=True).then("true").changes


def test_only_looking_is_repeatable() -> None:
    """A switch or a restart counts as a change; reading and fetching do not."""
    assert commands.prepare(DEPLOY, SHA).changes
    assert commands.activate(DEPLOY, SHA).changes
    assert commands.units(SERVICES, "restart", SERVICES.web).changes
    looks = [
        commands.inspect(DEPLOY, SERVICES),
        commands.fetch(DEPLOY, 60),
        commands.commit_of(DEPLOY, "main"),
        commands.is_on_branch(DEPLOY, SHA),
        commands.log_between(DEPLOY, SHA, SHA),
        commands.read_state(DEPLOY),
    ]
    assert not any(command.changes for command in looks)


@pytest.mark.parametrize("name", ["main", "v1.2", "feature/x", "4f2c9e1", SHA, "release-2025+1"])
def test_a_revision_may_be_a_hash_or_a_name(name: str) -> None:
    """What git accepts as the name of a commit, branch or tag passes."""
    assert commands.checked_revision(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-x",
        "--upload-pack=x",
        "a b",
        "a;b",
        "a..b",
        "$(id)",
        "a\nb",
        "@{-1}",
        "a^",
        "x.lock",
        "/a",
        "a//b",
        "a" * 300,
    ],
)
def test_anything_else_is_no_revision(name: str) -> None:
    """An option, a range, an expression or shell syntax is refused before anything is sent."""
    with pytest.raises(Refused, match="no revision"):
        commands.checked_revision(name)


@pytest.mark.parametrize("sha", ["main", SHA[:39], SHA.upper(), SHA + "0", "-" + SHA[1:], SHA + "\n"])
def test_only_a_whole_commit_id_changes_a_host(sha: str) -> None:
    """A branch is refused, because it may move at any time."""
    for make in (commands.prepare, commands.activate, commands.is_on_branch):
        with pytest.raises(Refused, match="full commit id"):
            make(DEPLOY, sha)


@pytest.mark.parametrize("bad", ["", "../x", "a/b", "a b", "-x", ".hidden", "x" * 129, "a\n"])
def test_an_operation_id_names_a_folder(bad: str) -> None:
    """An id that would leave its folder is refused."""
    with pytest.raises(Refused):
        commands.checked_id(bad)


def test_the_branch_is_fetched_and_not_the_id() -> None:
    """Git servers refuse to send a commit id that is not the tip of a ref."""
    assert "+refs/heads/main:refs/remotes/origin/main" in str(commands.fetch(DEPLOY, 60))
    assert "GIT_TERMINAL_PROMPT=0" in commands.fetch(DEPLOY, 60).script


def test_the_switch_is_detached_at_the_exact_commit() -> None:
    """The switch never uses git pull, which would bring a bad commit back."""
    text = commands.activate(DEPLOY, SHA).script
    assert 'checkout --quiet --force --detach "$sha"' in text
    assert "git_here pull" not in text
    assert "reset --hard" not in text


def test_looking_at_units_needs_no_sudo() -> None:
    """`show` runs without sudo, because sudo may allow only the verbs."""
    text = commands.inspect(DEPLOY, SERVICES).script
    assert "service_show() { systemctl show" in text
    assert "service() { sudo -n systemctl" in text
    user = Services(command=("systemctl", "--user"), web=("x",))
    assert "service_show() { systemctl --user show" in commands.inspect(DEPLOY, user).script


def test_units_are_named_one_at_a_time() -> None:
    """A sudo rule such as `systemctl restart tsh-erp*` allows one unit in a call."""
    log = 'service() { echo "call $*"; }\nservice_show() { echo ActiveState=active; }\n'
    body = log + script("units")
    said = run(Command.procedure(body, "restart", "", "a", "b", title="t"))
    assert sorted(said.splitlines()) == sorted(
        ["call reset-failed a", "call restart a", "call reset-failed b", "call restart b"]
    )


def test_a_verb_that_is_none_is_our_own_mistake() -> None:
    """Only stopping and restarting exist."""
    with pytest.raises(ValueError, match="daemon-reload"):
        commands.units(SERVICES, "daemon-reload", ("x",))


def test_the_ledger_shows_titles_and_not_pages_of_shell() -> None:
    """The ledger stores the readable form of a command."""
    assert len(str(commands.activate(DEPLOY, SHA))) < 200
    assert SHA in str(commands.activate(RELEASES, SHA, back=True))
    assert "back" in str(commands.activate(RELEASES, SHA, back=True))


@pytest.mark.parametrize("strategy", [DEPLOY, RELEASES])
def test_every_procedure_is_valid_shell(strategy: Deploy) -> None:
    """A POSIX shell parses every script that we send."""
    made = [
        commands.prepare(strategy, SHA),
        commands.activate(strategy, SHA),
        commands.units(SERVICES, "stop", SERVICES.workers),
        commands.inspect(strategy, SERVICES, SHA),
        commands.commit_of(strategy, "main"),
        commands.read_state(strategy),
    ]
    for command in made:
        done = subprocess.run(["sh", "-n"], input=command.script, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
