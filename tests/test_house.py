"""What keeps the house in order: imports, configuration, queries, pins, and what two files must agree on."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from packaging.requirements import Requirement
from pydantic import BaseModel

from handlers.database.queries import queries
from handlers.environment.load import load_environment
from handlers.environment.model import Environment
from handlers.queue.event import QUEUE_NAMES, EntityType, Operation, Status
from handlers.release.phase import LIVE

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "environments" / "reference.toml"
SQL = sorted(
    file for file in (ROOT / "handlers").rglob("*.sql") if "migrations" not in file.relative_to(ROOT).parts
)
LINES_MAX = {"tests": 600}
LINES_MAX_ELSEWHERE = 300


def tracked(*suffixes: str, root: Path = ROOT) -> list[Path]:
    """The files that git tracks, by suffix. What merely lies in the folder is nobody's: `git add` makes it ours."""
    listing = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z"], capture_output=True, text=True, check=False
    )
    if listing.returncode or not listing.stdout:
        pytest.skip(
            f"git tracks nothing in {root}: an unpacked archive cannot be told from what lies beside it"
        )
    files = [root / name for name in listing.stdout.split("\0") if name]
    return [file for file in files if file.is_file() and (not suffixes or file.suffix in suffixes)]


def module_of(file: Path) -> str:
    """The module that runs the queries of *file*: the Python file beside it."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


def sections(model: type[BaseModel], where: tuple[str, ...] = ()) -> dict[tuple[str, ...], set[str]]:
    """The keys of each table that an environment file may have."""
    found: dict[tuple[str, ...], set[str]] = {where: set(model.model_fields)}
    for name, field in model.model_fields.items():
        annotation: Any = field.annotation
        inner = [annotation, *get_args(annotation)]
        for kind in inner:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found |= sections(kind, (*where, name))
    return found


def keys_without_a_sentence(text: str) -> list[str]:
    """Keys and table headings that no comment stands right above."""
    bare, above = [], ""
    for line in text.splitlines():
        if re.match(r"\[|[a-z_]+ =", line) and not above.startswith("#"):
            bare.append(line)
        above = line
    return bare


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that the sample environment files refer to."""
    for file in (ROOT / "environments").glob("*.toml"):
        for name in re.findall(r'"env:(\w+)"', file.read_text(encoding="utf-8")):
            monkeypatch.setenv(name, "not a real secret")


def test_imports_point_down() -> None:
    """Flows use tasks, tasks use handlers; the core knows no Prefect, and the queue no releases."""
    # A process of its own: import-linter sets up logging, which switches off every logger that is there already.
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "pyproject.toml"]
    linted = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_every_key_is_in_the_reference() -> None:
    """Whatever an environment file may say is shown in reference.toml."""
    shown = tomllib.loads(REFERENCE.read_text(encoding="utf-8"))
    for where, keys in sections(Environment).items():
        table: Any = shown
        for part in where:
            table = table[part][0] if isinstance(table[part], list) else table[part]
        assert keys == set(table), f"reference.toml, {'.'.join(where) or 'top level'}"


def test_every_key_has_its_sentence() -> None:
    """No key and no table stands in reference.toml without an explanation right above it."""
    assert keys_without_a_sentence(REFERENCE.read_text(encoding="utf-8")) == []


def test_a_key_without_a_sentence_would_be_seen() -> None:
    """The check above finds a bare key: it does not pass by looking at nothing."""
    assert keys_without_a_sentence("# explained\na_key = 1\nbare_key = 2\n\n[table]\n") == [
        "bare_key = 2",
        "[table]",
    ]


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("file", sorted((ROOT / "environments").glob("*.toml")), ids=lambda file: file.stem)
def test_every_environment_file_loads(file: Path) -> None:
    """The samples and the reference are what the program accepts, and are named after their files."""
    assert load_environment(str(file)).name == file.stem


@pytest.mark.usefixtures("secrets")
def test_defaults_in_the_reference_are_the_defaults() -> None:
    """Where the reference shows a number, it is the one that holds when the key is left out."""
    shown = load_environment(str(REFERENCE))
    for name in ("canary", "drain", "watch", "gate", "guard", "approval", "migrations"):
        section = getattr(shown, name)
        default = type(section)()
        # A key without a default is computed: the reference shows what comes out.
        computed = {key for key, value in default if value is None}
        assert section.model_dump(exclude=computed) == default.model_dump(exclude=computed), name
    assert shown.gate.tolerable == type(shown.gate)().tolerable


@pytest.mark.parametrize("file", SQL, ids=module_of)
def test_every_query_is_used(file: Path) -> None:
    """A query that the Python file beside it does not ask for by its name is dead, or somebody else's."""
    code = file.with_suffix(".py").read_text(encoding="utf-8")
    unused = [name for name in queries(module_of(file)) if not re.search(rf"""["']{name}["']""", code)]
    assert unused == []


def test_nobody_runs_the_queries_of_another_module() -> None:
    """Each module asks for its own file: who needs a query of another calls that module's function."""
    code = {
        file: file.read_text(encoding="utf-8") for file in tracked(".py") if ROOT / "handlers" in file.parents
    }
    asked = [call for text in code.values() for call in re.findall(r"(?<!def )\bqueries\(([^)]*)\)", text)]
    beside = [file for file, text in code.items() if "queries(__name__)" in text]
    assert set(asked) == {"__name__"}
    assert sorted(file.with_suffix(".sql") for file in beside) == SQL
    imported = [
        file.name for file, text in code.items() if re.search(r"^from .* import .*\b_?SQL\b", text, re.M)
    ]
    assert imported == []


@pytest.mark.parametrize("file", SQL, ids=module_of)
def test_every_query_has_its_sentence(file: Path) -> None:
    """The line below a query's name says what it is for."""
    text = file.read_text(encoding="utf-8")
    assert re.findall(r"^-- (\w+) --\n(?!-- \w)", text, re.MULTILINE) == []
    assert queries(module_of(file)), "a file without queries would pass by saying nothing"


def test_no_query_lists_the_live_phases() -> None:
    """Queries get the live phases as a parameter: one list in Python, and one in the index of the migration."""
    named = {}
    for file in SQL:
        for name, query in queries(module_of(file)).items():
            phases = {phase for phase in LIVE if f"'{phase}'" in query.text}
            if len(phases) > 1:
                named[f"{module_of(file)}, {name}"] = phases
    assert named == {}


LEASE_IS_FREE = (
    "(q.locked_by IS NULL OR q.lock_expires_at <= now() OR q.locked_by = q.processing_result ->> 'worker')"
)


def test_a_lease_is_free_in_the_same_words_everywhere() -> None:
    """Claiming, burying and restoring agree on when nobody holds an event."""
    said = {
        f"{file.parent.name}/{file.name}": sql.count(LEASE_IS_FREE)
        for file in SQL
        if "locked_by IS NULL OR" in (sql := file.read_text(encoding="utf-8"))
    }
    assert said == {
        "queue/claim.sql": 2,
        "queue/in_hand.sql": 1,
        "queue/settle.sql": 1,
        "queue/redrive.sql": 1,
        "phases/sent_webhook.sql": 1,
    }
    others = [
        query.text.replace(LEASE_IS_FREE, "") for file in SQL for query in queries(module_of(file)).values()
    ]
    assert [text for text in others if "locked_by IS NULL OR" in text] == []


def test_retries_and_fresh_events_are_claimed_by_the_same_rules() -> None:
    """The twins of the claim differ in the status that they look for and in their order, and in nothing else."""
    sql = re.sub(r"^ *--.*\n", "", queries("handlers.queue.claim")["chosen"].text, flags=re.MULTILINE)
    twins = re.search(r"\), retries AS \((.*?)\n\), fresh AS \((.*?)\n\), locked AS", sql, re.DOTALL)
    assert twins is not None
    retries, fresh = twins[1].splitlines(), twins[2].splitlines()
    assert [line.strip() for line in retries if line not in fresh] == [
        "WHERE q.status = 'retry'",
        "AND q.next_retry_at <= now()",
        "ORDER BY q.next_retry_at, q.created_at, q.id",
        "LIMIT least(CAST(:limit AS bigint), CAST(:retries_max AS bigint))",
    ]
    assert [line.strip() for line in fresh if line not in retries] == [
        "WHERE q.status = 'pending'",
        "ORDER BY q.priority, q.created_at, q.id",
        "LIMIT (SELECT least(CAST(:limit AS bigint) - count(*), CAST(:fresh_max AS bigint)) FROM retries)",
    ]


def test_left_behind_events_are_counted_and_listed_by_the_same_rules() -> None:
    """The twins that count and list what a revision has left behind have one condition."""
    found = queries("handlers.release.left_behind")
    rules = [re.sub(r"^ *--.*\n", "", found[name].text, flags=re.MULTILINE) for name in ("kinds", "ids")]
    counted, listed = (text[text.index("FROM tds_sync_queue") :].rstrip(";\n") for text in rules)
    assert counted.partition("\nGROUP BY")[0] == listed


def test_every_comment_in_sql_is_short() -> None:
    """One idea a sentence, at most 25 words, in lines of 120; a query's own comment is one or two sentences."""
    long = []
    for file in SQL:
        long += [
            f"{file.name}: {line}"
            for line in file.read_text(encoding="utf-8").splitlines()
            if len(line) > 120
        ]
        for comment in re.findall(r"(?:^ *--.*\n)+", file.read_text(encoding="utf-8"), re.MULTILINE):
            text = " ".join(line.strip().removeprefix("--").strip() for line in comment.splitlines())
            sentences = re.split(r"(?<=\.) ", re.sub(r"^\w+ -- ", "", text))
            long += [f"{file.name}: {each}" for each in sentences if len(each.split()) > 25]
            if re.match(r"\w+ -- ", text) and len(re.split(r"(?<=\.) ", text)) > 2:
                long.append(f"{file.name}: {text}")
    assert long == []


READS_THIS_MACHINES_CLOCK = re.compile(
    r"\b(?:datetime\.(?:now|today|utcnow)|date\.today|time\.(?:time|time_ns|localtime|gmtime))\("
)
COMPARES_CLOCKS = {"handlers/phases/clock_checks.py", "handlers/host/facts.py"}
"""The two files that measure how far other clocks are from ours."""
SHOWS_THE_TIME = {"flows/cli/doctor.py", "flows/cli/from_hosts.py"}
"""They print the time of a line, or name a file by it, and work without the database."""
OTHERS = {"handlers/environment/last_good.py", "handlers/host/host_key.py"}
"""They compare it with a file on this machine, and with the validity of a certificate."""


def test_there_is_one_clock() -> None:
    """Stored times and ages are the database's, durations are monotonic: no time of ours is compared with another's."""
    files = [
        file
        for file in tracked(".py")
        if file.relative_to(ROOT).parts[0] in ("flows", "tasks", "handlers", "board")
        and READS_THIS_MACHINES_CLOCK.search(file.read_text(encoding="utf-8"))
    ]
    assert {str(file.relative_to(ROOT)) for file in files} == COMPARES_CLOCKS | SHOWS_THE_TIME | OTHERS


def test_the_pinned_prefect_is_installed() -> None:
    """Prefect 3.9.1 is what was measured: its signals, retries and schedules are what the flows lean on."""
    assert version("prefect") == "3.9.1"


def test_what_is_installed_is_what_is_locked() -> None:
    """Every requirement of ours has its one locked version, and that version runs here."""
    locked = dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", lock_text(), re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    # The other queues that a benchmark compares with are no part of any install.
    extras = [lines for name, lines in project["optional-dependencies"].items() if name != "bench"]
    lines = [*project["dependencies"], *itertools.chain(*extras)]
    wanted = [Requirement(line).name.lower() for line in lines]
    assert {name: version(name) for name in wanted} == {name: locked.get(name) for name in wanted}


def test_the_lock_names_no_index_and_has_hashes() -> None:
    """The lock works with any index and trusts none: no address, no options, a hash for each package."""
    lines = [line for line in lock_text().splitlines() if line.strip() and not line.startswith("#")]
    packages = [line for line in lines if not line.startswith(" ")]
    hashes = [line for line in lines if line.startswith(" ")]
    assert [line for line in packages if not re.match(r"[a-z0-9._-]+==\S+( ;.*)? \\$", line)] == []
    assert [line for line in hashes if not re.match(r"    --hash=sha256:[0-9a-f]{64}( \\)?$", line)] == []
    assert "://" not in lock_text()


def lock_text() -> str:
    """The locked requirements."""
    return (ROOT / "requirements.lock").read_text(encoding="utf-8")


def test_the_first_commands_of_the_readme_are_what_is_checked() -> None:
    """Whoever follows the README runs the same test command as .ci/run."""
    readme, ci = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", ".ci/run"))
    assert re.search(r"^\s*make test\b", readme, re.MULTILINE)
    assert re.search(r"^make test\b", ci, re.MULTILINE)
    assert re.search(r"^\s*make rehearse\b", readme, re.MULTILINE)


def test_make_lists_every_command() -> None:
    """`make` alone names every target that a person may call."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    help_text = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True).stdout
    assert [name for name in phony[1].split() if f"make {name} " not in help_text] == []


def test_every_flow_can_be_started_from_the_page() -> None:
    """prefect.yaml deploys each flow that the code has, by its module, and nothing else."""
    deployed = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    assert {item["entrypoint"] for item in deployed} == set(flows())
    assert all(item["work_pool"]["job_variables"]["stream_output"] is False for item in deployed)


def flows() -> list[str]:
    """Every function of flows/ that is decorated as a flow, and every flow that is fixed to one environment."""
    found = []
    for module in sorted((ROOT / "flows").glob("*.py")):
        for node in ast.parse(module.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef):
                names = [ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list]
                found += [f"flows.{module.stem}.{node.name}"] if "flow" in names else []
            elif isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("fixed("):
                found += [f"flows.{module.stem}.{ast.unparse(target)}" for target in node.targets]
    return found


def test_flows_are_async() -> None:
    """A sync flow waits a second for its heartbeat thread, and its sync tasks build a TLS context each."""
    for module in sorted((ROOT / "flows").glob("*.py")):
        for node in ast.parse(module.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef):
                names = [ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list]
                assert "flow" not in names, f"{module.name}: {node.name}"


def test_files_stay_short() -> None:
    """A file tells one thing."""
    long = {}
    for file in tracked(".py"):
        name = file.relative_to(ROOT)
        lines = len(file.read_text(encoding="utf-8").splitlines())
        if lines > LINES_MAX.get(name.parts[0], LINES_MAX_ELSEWHERE):
            long[str(name)] = lines
    assert long == {}


def test_the_queue_enums_agree_with_the_erp() -> None:
    """Status, operation and entity names are those of the ERP's own enum types, letter by letter."""
    erp = (ROOT / "rehearsal" / "erp.sql").read_text(encoding="utf-8")
    assert enum_values(erp, "tds_event_status") == {str(status) for status in Status}
    assert enum_values(erp, "tds_operation_type") == {str(operation) for operation in Operation}
    assert set(QUEUE_NAMES) == set(EntityType)
    assert set(QUEUE_NAMES.values()) <= enum_values(erp, "tds_entity_type")


def enum_values(sql: str, name: str) -> set[str]:
    """The values of an enum type as *sql* creates it."""
    body = re.search(rf"CREATE TYPE (?:public\.)?{name} AS ENUM\s*\((.*?)\)", sql, re.DOTALL | re.IGNORECASE)
    assert body is not None, name
    return set(re.findall(r"'([^']*)'", body[1]))


def test_every_name_in_the_architecture_page_is_where_it_says() -> None:
    """`name` in `path`, as the page writes it: the file defines that name, or has a query of it."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`(\w+)`(?: and `(\w+)`)? in\s+`([\w/.]+)`", page)
    assert len(named) > 8
    missing = []
    for *names, path in named:
        text = (ROOT / path).read_text(encoding="utf-8")
        for name in filter(None, names):
            if not re.search(rf"^(?:(?:async )?def |class |-- )?{name}\b", text, re.MULTILINE):
                missing.append(f"{name} in {path}")
    assert missing == []


def test_no_path_of_a_machine_is_in_the_tree() -> None:
    """Nothing that is handed over names a folder of the machine that it was made on."""
    paths = re.compile("/" + r"(?:work|root|Users|opt/[a-z]+)/[a-z.]")
    found = []
    for file in tracked():
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{file.relative_to(ROOT)}: {hit[0]}" for hit in paths.finditer(text)]
    assert found == []


def missing_paths(text: str, paths: set[str]) -> list[str]:
    """The names in backticks that look like a path of the tree, and are none of *paths* or of their folders.

    A path begins with a folder at the top of the tree, or is a file name alone. A name in capitals is a placeholder,
    as in environments/NAME.toml.
    """
    top_folders = {path.partition("/")[0] for path in paths if "/" in path}
    known = paths | {Path(path).name for path in paths}
    known |= {str(folder) for path in paths for folder in Path(path).parents}
    missing = []
    for name in re.findall(r"(?<!`)`([\w./-]+)`(?!`)", text):
        top, slash, _ = name.partition("/")
        is_path = top in top_folders if slash else re.search(r"\w\.(py|sh|sql|md|yaml|lock)$", name)
        if is_path and name.rstrip("/") not in known and not Path(name).stem.isupper():
            missing.append(name)
    return missing


@pytest.mark.parametrize("file", ["README.md", *sorted(path.name for path in (ROOT / "docs").glob("*.md"))])
def test_every_path_in_the_documentation_exists(file: str) -> None:
    """A reader who follows a path in the README or in docs/ finds it."""
    text = (ROOT / file if file == "README.md" else ROOT / "docs" / file).read_text(encoding="utf-8")
    assert missing_paths(text, {str(path.relative_to(ROOT)) for path in tracked()}) == []


def test_a_path_that_does_not_exist_would_be_found() -> None:
    """The check above finds files and folders that are gone, and nothing else."""
    text = "`flows/gone.py` `flows/release.py` `release.py` `flows/` `a/b` `flows/old/` `flows drain` `flows/X.py`"
    assert missing_paths(f"{text} `gone.py`", {"flows/release.py"}) == [
        "flows/gone.py",
        "flows/old/",
        "gone.py",
    ]


def test_only_what_git_tracks_is_checked(tmp_path: Path) -> None:
    """A log that lies in a clone is no file of the project; a file counts from `git add` on."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    for name in ("ours.py", "lying.log"):
        (tmp_path / name).touch()
    subprocess.run(["git", "-C", str(tmp_path), "add", "ours.py"], check=True)
    assert tracked(root=tmp_path) == [tmp_path / "ours.py"]


def test_an_unpacked_archive_is_not_taken_for_a_checkout(tmp_path: Path) -> None:
    """Where git tracks nothing the checks say that they saw nothing, and do not pass."""
    with pytest.raises(pytest.skip.Exception, match="git tracks nothing"):
        tracked(root=tmp_path)
