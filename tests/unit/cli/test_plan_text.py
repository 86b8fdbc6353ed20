"""The text of a plan: its steps, or no steps when a check failed."""

from __future__ import annotations

from dataclasses import replace

from flows.cli.plan_text import lines
from handlers.environment import frozen
from handlers.gate.values import Thresholds
from handlers.queue.event import EntityType
from handlers.release.host_steps import host_steps
from handlers.release.phase import Phase
from handlers.release.planned import EVERYTHING, Check, Plan, PlannedEvent, PlannedHost
from handlers.release.schema_changes import Mark, Migration
from handlers.release.usual import usual_of
from tests.unit.environment.files import environment

GOOD = Check(name="database", good=True, sentence="answers")
PLAN = Plan(
    environment="staging",
    requested="main",
    from_revision="a" * 40,
    to_revision="b" * 40,
    scope=EVERYTHING,
    commits=(),
    hosts=(),
    events=(),
    set_aside={},
    queue={"completed": 3, "dead_letter": 0},
    failed={},
    checks=(GOOD,),
    thresholds=Thresholds(),
    baseline=None,
    seconds_expected=60,
    steps=("deploy bbbbbbb to web-1", "watch: 30 min"),
)


def test_a_plan_with_a_failed_check_has_no_steps() -> None:
    """With a failed check it shows the reason instead of steps, thresholds and duration."""
    bad = replace(PLAN, checks=(GOOD, Check(name="web-1", good=False, sentence="web-1 has local changes")))
    text = "\n".join(lines(bad))
    assert "[FAIL] web-1" in text
    assert "Steps    none: 1 of 2 checks failed" in text
    assert "deploy bbbbbbb" not in text
    assert "about 1 min" not in text
    assert "deploy bbbbbbb" in "\n".join(lines(PLAN))


def test_a_warning_is_marked_and_forbids_nothing() -> None:
    """A warning is marked, and the steps are shown."""
    text = "\n".join(lines(replace(PLAN, checks=(replace(GOOD, warns=True),))))
    assert "[warn] database" in text
    assert "1. deploy bbbbbbb" in text


def test_a_run_without_a_deploy_has_no_rollback() -> None:
    """It deploys nothing, so a breach holds it instead of rolling back, and the plan says so."""
    text = "\n".join(lines(replace(PLAN, scope=(Phase.PROBING, Phase.WATCHING), to_revision="a" * 40)))
    assert "aaaaaaa stays: nothing is deployed" in text
    assert "held below 80 %" in text
    assert "Rollback" not in text
    assert "Rollback to aaaaaaa" in "\n".join(lines(PLAN))


FULL = replace(
    PLAN,
    commits=(">bbbbbbb Ada L: Fix the greenlet error",),
    hosts=tuple(PlannedHost(name=f"web-{n}", current="a" * 40, rollback_present=True) for n in (1, 2, 3)),
    host_steps=host_steps(environment("web-1", "web-2", "web-3", services={"workers": ["w"]}), EVERYTHING),
    events=tuple(
        PlannedEvent(id=str(n), entity=EntityType.PRODUCT, key="k", error_code="E1", fingerprint="f")
        for n in range(2)
    ),
    set_aside={"Package, error none: nothing handles this entity type": 6},
    migrations=(
        Migration(path="alembic/versions/3_drop.py", mark=Mark.CONTRACT, why="drops a column"),
        Migration(path="alembic/versions/2_add.py", mark=Mark.EXPAND, why=""),
    ),
    settings=frozen.settings(environment(approval={"needed": 2, "people": ["ops-b", "ops-c", "ops-d"]})),
)
SHOWN = """\
   > bbbbbbb Ada L: Fix the greenlet error
Checks
 [ok]   database     answers
Hosts          prepare     stop   switch    start    probe  runs
 web-1               1        2        3        5        6  aaaaaaa
 web-2               1        2        4        5        6  aaaaaaa
 web-3               1        2        4        5        6  aaaaaaa
Migrations
 contract  alembic/versions/3_drop.py (drops a column)
 expand    alembic/versions/2_add.py
Dead letters
      2 Product, error E1: drained
      6 not drained: Package, error none: nothing handles this entity type
Steps
 1. deploy bbbbbbb to web-1
 2. watch: 30 min
Time     about 60 s by the settings; no history of such a release
Gate     good from 95 %, held below 80 %
Rollback to aaaaaaa, present on every host; NOT automatic: 1 contract migration,
         so a breach holds it
Approval 2 needed of ops-b, ops-c, ops-d, within 30 min; whoever asks does not
         count"""


def test_the_whole_plan_in_80_columns() -> None:
    """Hosts and steps, authors, migrations, dead letters with why not, time, rollback target and approvals."""
    text = list(lines(FULL))
    assert "\n".join(text[1:]) == SHOWN
    assert text[0] == f"plan {FULL.hash}  staging  aaaaaaa -> bbbbbbb"
    assert max(map(len, text)) <= 80


def test_the_time_is_that_of_the_releases_before() -> None:
    """The median with its spread, and each phase."""
    taken = [{Phase.DEPLOYING: 40.0, Phase.WATCHING: seconds} for seconds in (1800.0, 1860.0, 2400.0)]
    text = " ".join(" ".join(lines(replace(FULL, usual=usual_of(taken)))).split())
    assert (
        "Time usually 32 min (31 min to 41 min in 3 releases before): deploying 40 s, watching 31 min" in text
    )
    assert usual_of([]) is None
    assert usual_of([{}]) is None


def test_many_hosts_and_migrations_are_counted() -> None:
    """The first ones are shown, and how many more."""
    names = [f"web-{n}" for n in range(1, 41)]
    many = replace(
        FULL,
        host_steps=host_steps(environment(*names), EVERYTHING),
        migrations=tuple(Migration(path=f"{n}.sql", mark=Mark.UNKNOWN, why="x") for n in range(20)),
    )
    text = list(lines(many))
    assert " ... and 10 more hosts, the last of them at 7" in text
    assert " ... and 8 unknown more" in text


def test_a_name_from_outside_moves_no_cursor() -> None:
    """Authors and paths are printed as they can be printed."""
    plan = replace(
        FULL,
        commits=(">bbbbbbb Ada\x1b[2J\rL: x",),
        migrations=(Migration(path="a\x1b[2J.sql", mark=Mark.UNKNOWN, why="x"),),
    )
    assert "\x1b" not in "".join(lines(plan))


def test_commits_are_listed_below_the_plan() -> None:
    """Each commit that the revision adds or removes has its own shortened line."""
    plan = replace(PLAN, commits=(">bbbbbbb Fix the greenlet error", "<ccccccc " + "long " * 40))
    text = list(lines(plan))
    assert text[1] == "   > bbbbbbb Fix the greenlet error"
    assert text[2].startswith("   < ccccccc long")
    assert len(text[2]) <= 80
