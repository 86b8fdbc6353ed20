"""What can break, when, and for how long: the values behind `--fault KIND@MOMENT[:SECONDS]`. Pure."""

from __future__ import annotations

import difflib
import random
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from handlers.errors import Refused
from handlers.release.phase import Phase


class Kind(StrEnum):
    """What breaks."""

    DATABASE_AWAY = "database-away"
    DATABASE_CRASH = "database-crash"
    DATABASE_READONLY = "database-readonly"
    DATABASE_LOGIN = "database-login"
    HOST_AWAY = "host-away"
    HOST_REFUSES = "host-refuses"
    ANSWERS_LOST = "answers-lost"
    LOGIN_REFUSED = "login-refused"
    HOST_REBOOT = "host-reboot"
    DISK_FULL = "disk-full"
    UNIT_HANGS = "unit-hangs"
    NOISY_SHELL = "noisy-shell"
    CONTROLLER_KILLED = "controller-killed"
    CONTROLLER_PAUSED = "controller-paused"
    SECOND_MANAGER = "second-manager"
    CANCELLED = "cancelled"
    PREFECT_KILLED = "prefect-killed"
    CLOCK_JUMP = "clock-jump"
    ENVIRONMENT_EDITED = "environment-edited"
    ENVIRONMENT_TORN = "environment-torn"


@dataclass(frozen=True, kw_only=True)
class About:
    """One kind of fault."""

    what: str
    """What it does, in one sentence."""
    seconds: float | None = None
    """The default; None lasts to the end of the release, or is over at once."""
    seconds_are: str = "how long it lasts"
    """The meaning of SECONDS; empty where the kind takes none."""
    seconds_max: float = 3600
    on_host: bool = False
    """Whether it strikes one host."""
    drawn: tuple[float, float] | None = None
    """The range of seconds of a random draw; None for the default."""


KINDS: Mapping[Kind, About] = {
    Kind.DATABASE_AWAY: About(what="PostgreSQL is stopped, and started again", seconds=5, drawn=(1, 25)),
    Kind.DATABASE_CRASH: About(
        what="PostgreSQL is stopped without a shutdown (`pg_ctl -m immediate`), and started again",
        seconds=2,
        drawn=(0, 10),
    ),
    Kind.DATABASE_READONLY: About(
        what="the database drops all connections and refuses writes (default_transaction_read_only), "
        "as in a failover",
        seconds=8,
        drawn=(1, 20),
    ),
    Kind.DATABASE_LOGIN: About(
        what="the database drops all connections and refuses the login, as while its password is changed",
        seconds=8,
        drawn=(1, 20),
    ),
    Kind.HOST_AWAY: About(
        what="the host is cut off: SSH and health answer nothing", seconds=20, on_host=True, drawn=(2, 30)
    ),
    Kind.HOST_REFUSES: About(
        what="SSH and health refuse connections; open ones are reset",
        seconds=20,
        on_host=True,
        drawn=(2, 30),
    ),
    Kind.ANSWERS_LOST: About(
        what="what is sent to the host arrives, and its answers get lost (a one-way partition)",
        seconds=20,
        on_host=True,
        drawn=(2, 30),
    ),
    Kind.LOGIN_REFUSED: About(
        what="the host does not accept the SSH key any more; open connections are reset",
        seconds=20,
        on_host=True,
        drawn=(2, 30),
    ),
    Kind.HOST_REBOOT: About(
        what="every process of the host is killed; later its units start again by themselves",
        seconds=10,
        on_host=True,
        drawn=(3, 25),
    ),
    Kind.DISK_FULL: About(what="the host's disk has no byte left", seconds=20, on_host=True, drawn=(5, 30)),
    Kind.UNIT_HANGS: About(
        what="the unit of the operation (else the workers) ignores SIGTERM, and its start hangs",
        seconds=30,
        on_host=True,
        drawn=(5, 40),
    ),
    Kind.NOISY_SHELL: About(
        what="the host's login shell prints lines and reads a line at each login", on_host=True
    ),
    Kind.CONTROLLER_KILLED: About(
        what="the controller is killed (SIGKILL); the timer's `runbook resume --due` carries on",
        seconds=0,
        seconds_are="how long the timer does not run",
        drawn=(0, 20),
    ),
    Kind.CONTROLLER_PAUSED: About(
        what="the controller is suspended (SIGSTOP) for longer than its lock lasts, and continued", seconds=75
    ),
    Kind.SECOND_MANAGER: About(
        what="another person runs `runbook release` and `runbook resume`", seconds_are=""
    ),
    Kind.CANCELLED: About(what="the flow run is set to Cancelling, as the Prefect page does", seconds_are=""),
    Kind.PREFECT_KILLED: About(what="the Prefect server is killed (SIGKILL)", seconds_are=""),
    Kind.CLOCK_JUMP: About(
        what="the controller's clock jumps forward (needs libfaketime)",
        seconds=2400,
        seconds_are="by how many seconds",
        seconds_max=86_400,
    ),
    Kind.ENVIRONMENT_EDITED: About(what="the last host is removed from the environment file"),
    Kind.ENVIRONMENT_TORN: About(what="the environment file is half written", seconds=3, drawn=(1, 10)),
}

OPERATIONS = ("prepare", "stop-workers", "activate", "start-workers")
"""The kinds of operations of a deploy. Those of a rollback have the prefix `back-`."""
_BACK = "back-"
FORWARD = (
    Phase.PLANNED, Phase.APPROVED, Phase.DEPLOYING, Phase.PROBING, Phase.CANARY, Phase.DRAINING, Phase.WATCHING,
)  # fmt: skip
PHASES = (*FORWARD, Phase.ROLLING_BACK)
MOMENTS: tuple[str, ...] = (*PHASES, *OPERATIONS, *(f"{_BACK}{name}" for name in OPERATIONS))
"""Every moment: the begin of a phase, or of an operation on a host."""
_SHORT = {
    "plan": Phase.PLANNED,
    "approve": Phase.APPROVED,
    "deploy": Phase.DEPLOYING,
    "probe": Phase.PROBING,
    "drain": Phase.DRAINING,
    "watch": Phase.WATCHING,
    "rollback": Phase.ROLLING_BACK,
    "rolling-back": Phase.ROLLING_BACK,
    "back": Phase.ROLLING_BACK,
    "stop": "stop-workers",
    "start": "start-workers",
    "switch": "activate",
    "back-stop": "back-stop-workers",
    "back-start": "back-start-workers",
    "back-switch": "back-activate",
}
"""The shorter words that people use."""
FORM = "KIND@MOMENT[+DELAY][/HOST][:SECONDS]"
EXAMPLE = "database-away@activate:20"
_TEXT = re.compile(
    r"(?P<kind>[^@]*)@(?P<moment>[^+/:]*)(?:\+(?P<delay>[^/:]*))?(?:/(?P<host>[^:]*))?(?::(?P<seconds>.*))?"
)


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The begin of a phase or of an operation, and a delay after it."""

    name: str
    host: str | None = None
    """The host that the fault strikes. For an operation, the moment is that of this host."""
    delay_seconds: float = 0

    @property
    def operation(self) -> str | None:
        """The kind of the operation; None for a phase."""
        return None if self.name in PHASES else self.name

    def __str__(self) -> str:
        delay = f"+{self.delay_seconds:g}" if self.delay_seconds else ""
        return f"{self.name}{delay}{f'/{self.host}' if self.host else ''}"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault to inject."""

    kind: Kind
    moment: Moment
    seconds: float | None

    def __str__(self) -> str:
        return f"{self.kind}@{self.moment}{f':{self.seconds:g}' if self.seconds is not None else ''}"


def parse(text: str, hosts: Collection[str]) -> Fault:
    """The fault that *text* describes, on a target with these *hosts*. Raises Refused with the allowed words."""
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        raise Refused(f"--fault {text!r} has no moment: write {FORM}, such as {EXAMPLE}")
    kind = Kind(_chosen(match["kind"], list(Kind), text, "kind of fault"))
    moment = _SHORT.get(match["moment"]) or _chosen(match["moment"], list(MOMENTS), text, "moment")
    about = KINDS[kind]
    host = match["host"]
    if host is not None and host not in hosts:
        raise Refused(f"--fault {text!r}: there is no host {host!r}; choose one of {_listed(hosts)}")
    if host is not None and not about.on_host and moment in PHASES:
        raise Refused(f"--fault {text!r}: {kind} strikes no host; leave out /{host}")
    if not about.seconds_are and match["seconds"] is not None:
        raise Refused(f"--fault {text!r}: {kind} takes no seconds; leave out :{match['seconds']}")
    return Fault(
        kind=kind,
        moment=Moment(
            name=str(moment),
            host=host,
            delay_seconds=_number(match["delay"], text, "the delay", 3600) or 0,
        ),
        seconds=_number(match["seconds"], text, "the seconds", about.seconds_max, about.seconds),
    )


def draw(
    count: int, seed: int, hosts: Collection[str], *, goes_back: bool, without: Collection[Kind] = ()
) -> list[Fault]:
    """*count* faults by chance, the same for the same *seed*. Moments of a rollback only where it *goes_back*."""
    chance = random.Random(seed)
    kinds = [kind for kind in Kind if kind not in without]
    moments = [name for name in MOMENTS if goes_back or not _is_back(name)]
    faults = []
    for _ in range(count):
        kind = chance.choice(kinds)
        about = KINDS[kind]
        moment = Moment(
            name=str(chance.choice(moments)),
            host=chance.choice(sorted(hosts)) if about.on_host else None,
            # Half of them at the begin itself, where most states change.
            delay_seconds=round(chance.choice((0, 1, 4)) * chance.random(), 2),
        )
        seconds = round(chance.uniform(*about.drawn), 1) if about.drawn else about.seconds
        faults.append(Fault(kind=kind, moment=moment, seconds=seconds))
    return faults


def _is_back(moment: str) -> bool:
    return moment == Phase.ROLLING_BACK or moment.startswith(_BACK)


def _chosen(word: str, words: list[str], text: str, what: str) -> str:
    if word in words:
        return word
    near = difflib.get_close_matches(word, words, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise Refused(f"--fault {text!r}: {word!r} is no {what}; {hint}choose one of {_listed(words)}")


def _number(
    word: str | None, text: str, what: str, most: float, default: float | None = None
) -> float | None:
    if word is None:
        return default
    try:
        number = float(word)
    except ValueError:
        number = -1
    if not 0 <= number <= most:
        raise Refused(f"--fault {text!r}: {what} must be a number from 0 to {most:g}, not {word!r}")
    return number


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)
