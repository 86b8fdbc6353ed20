"""A service manager for one rehearsal host: what a runbook needs of `systemctl`, with systemd's own manners.

Standard library only: it runs as `systemctl` on the host's PATH, reads unit files from HOST/units and
keeps one supervisor process for each started unit. It is as unhelpful as the original where that matters: a
restart of something that cannot start succeeds, and manual starts use up the start limit.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rehearsal.hosts.supervisor import signal_group, supervise
from rehearsal.hosts.units import Unit

_RUN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from rehearsal.hosts.systemctl import main; main()"

_SCRIPT = """#!/bin/sh
# The question that is asked most, answered without Python: what its supervisor, which lives, has written last.
run={run}
show=$run/$2.service.show
if [ "$#" = 4 ] && [ "$1 $3" = "show -p" ] && [ -f "$show" ] && command -v flock >/dev/null; then
    answer='' active=''
    while IFS= read -r line; do
        case $line in ActiveState=*) active=${{line#*=}} ;; esac
        case ",$4," in *",${{line%%=*}},"*) answer="$answer$line
" ;; esac
    done <"$show"
    case $active in
    inactive | failed) printf '%s' "$answer"; exit ;;
    *) flock -sn "$run/$2.service.alive" true || {{ printf '%s' "$answer"; exit; }} ;;
    esac
fi
exec {python} "$@"
"""


def install(host: Path) -> None:
    """Put `systemctl` into HOST/bin and make the folders it works with."""
    for folder in ("bin", "units", "run", "log"):
        (host / folder).mkdir(parents=True, exist_ok=True)
    script = host / "bin" / "systemctl"
    script.write_text(
        _SCRIPT.format(run=shlex.quote(str(host / "run")), python=shlex.join(command(host))), encoding="utf-8"
    )
    script.chmod(0o755)


def command(host: Path, *words: str) -> list[str]:
    """The words that run this file for *host*, without site packages: a service manager has to be quick."""
    here = str(Path(__file__).resolve().parents[2])
    return [sys.executable, "-I", "-S", "-c", _RUN, here, str(host), *words]


def main() -> None:
    """`HOST VERB [-p NAMES] [--value] UNIT…`, with systemd's words and exit codes."""
    host, words = Path(sys.argv[1]), sys.argv[2:]
    if words[:1] == ["--supervise"]:
        supervise(Unit(host, words[1]))
        return
    verb, names, flags, properties = _read(words)
    units = [Unit(host, name) for name in names]
    if verb == "reset-failed" and not units:
        units = [Unit(host, path.name) for path in sorted((host / "units").iterdir())]
    match verb:
        case "daemon-reload":
            code = 0
        case "show":
            code = _show(units, properties, value="--value" in flags)
        case "is-active" | "is-failed":
            code = _is(units, verb.removeprefix("is-"), quiet=bool(flags & {"-q", "--quiet"}))
        case "status":
            code = max((_status(unit) for unit in units), default=0)
        case "kill":
            number = _signal(flags)
            code = max((_kill(unit, number) for unit in units), default=0)
        case _ if verb in _VERBS:
            code = max((_job(verb, unit) for unit in units), default=0)
        case _:
            code = _complain(f"Unknown command verb {verb!r}.", 1)
    sys.exit(code)


def _read(words: list[str]) -> tuple[str, list[str], set[str], list[str]]:
    """Sort the words into verb, unit names, flags and the properties asked for."""
    plain: list[str] = []
    flags: set[str] = set()
    properties: list[str] = []
    rest = iter(words)
    for word in rest:
        if word in ("-p", "--property"):
            properties += next(rest, "").split(",")
        elif word.startswith("--property="):
            properties += word.partition("=")[2].split(",")
        elif word in ("-s", "--signal"):
            flags.add(f"--signal={next(rest, '')}")
        elif word.startswith("-p") and len(word) > 2:
            properties += word[2:].split(",")
        elif word.startswith("-"):
            flags.add(word)
        else:
            plain.append(word)
    return (plain[0] if plain else ""), plain[1:], flags, properties


def _job(verb: str, unit: Unit) -> int:
    """Do one job on a unit that exists, one job at a time."""
    if not unit.loaded:
        return _complain(f"Failed to {verb} {unit.name}: Unit {unit.name} not found.", 5)
    if verb == "reset-failed":  # It is no job, and waits for none.
        return reset_failed(unit)
    with unit.locked("job"):
        return _VERBS[verb](unit)


def start(unit: Unit) -> int:
    """Start the unit. As with systemd's simple services, success means that a process was made, no more."""
    if unit.read()["active"] in ("active", "activating"):
        return 0
    if not unit.may_start():
        return _complain(
            f"Job for {unit.name} failed: start request repeated too quickly (start-limit-hit).", 1
        )
    _end_orphan(unit)
    while unit.hang_file.exists():
        time.sleep(0.05)
    with unit.log.open("ab") as log:
        supervisor = subprocess.Popen(
            command(unit.root, "--supervise", unit.name),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, cwd="/", start_new_session=True,
        )  # fmt: skip
    assert supervisor.stdout is not None
    with supervisor.stdout as output:
        if output.readline() == b"started\n":
            return 0
    return _complain(f"Job for {unit.name} failed because of unavailable resources; see {unit.log}.", 1)


def stop(unit: Unit) -> int:
    """Stop the unit and wait until it is gone."""
    limit = unit.seconds("Service", "TimeoutStopSec", 30) + 10
    deadline = time.monotonic() + limit
    while unit.supervised():
        if supervisor := unit.stored().get("supervisor"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(supervisor, signal.SIGTERM)
        if time.monotonic() > deadline:
            return _complain(f"{unit.name} did not stop within {limit:.0f} s.", 1)
        time.sleep(0.02)
    _end_orphan(unit)
    if unit.read()["active"] != "failed":
        unit.write(active="inactive", sub="dead", pid=0)
    return 0


def restart(unit: Unit) -> int:
    """Stop, then start; a unit that is down is started."""
    return stop(unit) or start(unit)


def reset_failed(unit: Unit) -> int:
    """Forget the failure and the starts that count against the limit."""
    changes: dict[str, object] = {"starts": [], "restarts": 0, "result": "success"}
    if unit.read()["active"] == "failed":
        changes |= {"active": "inactive", "sub": "dead", "pid": 0}
    unit.write(**changes)
    return 0


def _end_orphan(unit: Unit) -> None:
    """A supervisor that was killed could not take its process along."""
    pid = unit.stored().get("pid", 0)
    if pid and not unit.supervised():
        signal_group(pid, signal.SIGKILL)


def _signal(flags: set[str]) -> int:
    """The signal of `kill`, as systemd takes it: KILL or SIGKILL, by default SIGTERM."""
    names = [flag.partition("=")[2] for flag in flags if flag.startswith("--signal=")]
    return signal.Signals[f"SIG{(names or ['TERM'])[0].removeprefix('SIG')}"]


def _kill(unit: Unit, number: int) -> int:
    """Signal the processes of the unit. It waits for no job: a stop may hang."""
    pid = unit.stored().get("pid", 0)
    if not unit.loaded or not pid:
        return _complain(f"Failed to kill unit {unit.name}: Unit {unit.name} not loaded.", 1)
    signal_group(pid, number)
    return 0


def _is(units: list[Unit], wanted: str, *, quiet: bool) -> int:
    """Print each unit's state; 0 when one is as wanted, else 3 (1 for is-failed), as systemd has it."""
    states = [str(unit.read()["active"]) for unit in units]
    if not quiet:
        print("\n".join(states))
    return 0 if wanted in states else {"active": 3, "failed": 1}[wanted]


def _status(unit: Unit) -> int:
    """A few lines for people; 0 active, 3 not, 4 no such unit."""
    if not unit.loaded:
        return _complain(f"Unit {unit.name} could not be found.", 4)
    state = unit.read()
    print(f"{unit.name} - {unit.get('Unit', 'Description', unit.name)}")
    print(f"     Loaded: loaded ({unit.file})")
    print(f"     Active: {state['active']} ({state['sub']}), result {state['result']}")
    print(f"   Restarts: {state['restarts']}")
    print(f"   Main PID: {state['pid']}")
    if unit.log.exists():
        print("\n".join(unit.log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:]))
    return 0 if state["active"] == "active" else 3


def _show(units: list[Unit], properties: list[str], *, value: bool) -> int:
    """Properties as NAME=VALUE lines, a blank line between units; an unknown unit is not an error here."""
    blocks = []
    for unit in units:
        known = unit.properties(unit.read())
        chosen = [name for name in known if not properties or name in properties]
        blocks.append("\n".join(str(known[name]) if value else f"{name}={known[name]}" for name in chosen))
    print("\n\n".join(blocks))
    return 0


def _complain(sentence: str, code: int) -> int:
    print(sentence, file=sys.stderr)
    return code


_VERBS: dict[str, Callable[[Unit], int]] = {
    "start": start,
    "stop": stop,
    "restart": restart,
    "reset-failed": reset_failed,
}
