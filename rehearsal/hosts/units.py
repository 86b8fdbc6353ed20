"""One unit of a rehearsal host: its file, and the state that its supervisor keeps beside it."""

from __future__ import annotations

import configparser
import contextlib
import fcntl
import json
import os
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_SPANS = {"": 1.0, "s": 1.0, "sec": 1.0, "ms": 0.001, "m": 60.0, "min": 60.0, "h": 3600.0}
_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TMPDIR", "TDS_REHEARSAL")
"""A unit gets a clean environment; the marker stays, so that a rehearsal finds all its processes."""


_NEW: dict[str, Any] = {
    "active": "inactive", "sub": "dead", "pid": 0, "restarts": 0, "result": "success", "status": 0,
    "starts": [], "since": 0.0,
}  # fmt: skip
"""The state of a unit that was never started."""


class Unit:
    """One unit: its file, and the state that its supervisor keeps beside it."""

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.name = name if "." in name else f"{name}.service"
        self.file = root / "units" / self.name
        self.state_file = root / "run" / f"{self.name}.json"
        self.log = root / "log" / f"{self.name.removesuffix('.service')}.log"
        self.show_file = self.state_file.with_suffix(".show")
        """The properties as `show` prints them, for a shell that answers without starting Python."""
        self.hang_file = self.state_file.with_suffix(".hangs")
        """While it exists, a start of the unit does not end."""
        self.loaded = self.file.is_file()
        parser = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#", ";"))
        # Keys of units keep their capitals; replacing this method is the documented way, and mypy knows no other.
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        if self.loaded:
            parser.read_string(_joined(self.file.read_text(encoding="utf-8")))
        self._parser = parser
        for folder in (self.state_file.parent, self.log.parent):
            folder.mkdir(exist_ok=True)

    def get(self, section: str, key: str, default: str = "") -> str:
        return self._parser.get(section, key, fallback=default)

    def seconds(self, section: str, key: str, default: float) -> float:
        return _seconds(self.get(section, key)) if self.get(section, key) else default

    def environment(self) -> dict[str, str]:
        """The inherited words, Environment=, then the files; a missing one without `-` is an OSError."""
        values = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        values |= dict(word.split("=", 1) for word in shlex.split(self.get("Service", "Environment")))
        for name in shlex.split(self.get("Service", "EnvironmentFile")):
            path = Path(name.removeprefix("-"))
            if name.startswith("-") and not path.exists():
                continue
            for line in path.read_text(encoding="utf-8").splitlines():
                if "=" in line and not line.lstrip().startswith(("#", ";")):
                    key, _, value = line.strip().partition("=")
                    values[key] = value.strip("\"'")
        return values

    def read(self) -> dict[str, Any]:
        """The state as it is true now: a supervisor that was killed took its word with it."""
        state = _NEW | self.stored()
        if state["active"] not in ("inactive", "failed") and not self.supervised():
            state |= {"active": "failed", "sub": "failed", "result": "signal"}
        return state

    def write(self, **changes: object) -> None:
        """Change the state; readers see the old one or the new one, never half of it."""
        with self.locked("state"):
            beside = self.state_file.with_suffix(".next")
            beside.write_text(json.dumps(self.stored() | changes), encoding="utf-8")
            beside.replace(self.state_file)
            beside.write_text(
                "".join(f"{name}={value}\n" for name, value in self.properties(self.stored()).items())
            )
            beside.replace(self.show_file)

    def properties(self, state: dict[str, Any]) -> dict[str, Any]:
        """The properties that `show` knows, in systemd's words."""
        state = _NEW | state
        since = state["since"]
        return {
            "Id": self.name,
            "LoadState": "loaded" if self.loaded else "not-found",
            "ActiveState": state["active"],
            "SubState": state["sub"],
            "MainPID": state["pid"],
            "ExecMainPID": state["pid"],
            "ExecMainStatus": state["status"],
            "NRestarts": state["restarts"],
            "Result": state["result"],
            "FragmentPath": self.file if self.loaded else "",
            "UnitFileState": "enabled" if self.loaded else "",
            "ActiveEnterTimestamp": time.strftime("%a %F %T UTC", time.gmtime(since)) if since else "",
        }

    def stored(self) -> dict[str, Any]:
        with contextlib.suppress(FileNotFoundError):
            state: dict[str, Any] = json.loads(self.state_file.read_text(encoding="utf-8"))
            return state
        return {}

    def supervised(self) -> bool:
        """Whether a supervisor lives: it holds a lock as long, and no reused process id can lie."""
        with self._open_lock("alive") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    @contextlib.contextmanager
    def locked(self, which: str) -> Iterator[None]:
        with self._open_lock(which) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _open_lock(self, which: str) -> Any:
        return self.state_file.with_suffix(f".{which}").open("w")

    def may_start(self) -> bool:
        """Count one more start; False when there were too many in a short time."""
        burst = int(self.get("Unit", "StartLimitBurst", "5"))
        interval = self.seconds("Unit", "StartLimitIntervalSec", 10)
        now = time.time()
        starts = [at for at in self.read()["starts"] if now - at < interval]
        if interval and len(starts) >= burst:
            self.write(active="failed", sub="failed", pid=0, result="start-limit-hit")
            return False
        self.write(starts=[*starts, now])
        return True


def _joined(text: str) -> str:
    """Unit files may name a key twice, which adds up: fold each into one line."""
    lines: list[str] = []
    place: dict[str, int] = {}
    for line in text.replace("\\\n", " ").splitlines():
        key, equals, value = line.partition("=")
        if equals and key in ("Environment", "EnvironmentFile"):
            if key in place:
                lines[place[key]] += f" {value}"
                continue
            place[key] = len(lines)
        lines.append(line)
    return "\n".join(lines)


def _seconds(text: str) -> float:
    """systemd's spans: `5`, `500ms`, `1min 30s`; infinity is a day here."""
    if text == "infinity":
        return 86_400.0
    return sum(float(number) * _SPANS[unit] for number, unit in re.findall(r"([\d.]+)\s*([a-z]*)", text))
