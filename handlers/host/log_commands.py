"""The commands that read the logs of a host. Pure: standard library only, like the other commands.

The host keeps what may be an error and each kind of it once, so that a chatty log costs few bytes on the way.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from handlers.host.command import Command, quote
from handlers.host.sh import script

if TYPE_CHECKING:
    from handlers.environment.model import Services


def logs(services: Services, unit: str, since_seconds: int, until_seconds: int, lines: int) -> Command:
    """Prints the last lines of a unit's log between two ages, with the configured command.

    The host itself makes Unix times of the ages, by the clock that its logs are written with.
    """
    values = {"{unit}": quote(unit), "{lines}": str(lines), "{since}": '"$since"', "{until}": '"$until"'}
    body = f"now=$(date +%s) since=$((now - $1)) until=$((now - $2))\n{_filled(services.logs, values)}"
    return Command.procedure(body, since_seconds, until_seconds, unit, title="logs")


def log_unit(
    services: Services,
    unit: str,
    *,
    since_seconds: int,
    until_seconds: int | None = None,
    read: str = "",
    lines: int,
    kinds: int,
    characters: int,
) -> Command:
    """Prints the errors of a unit's log from one age on, or after what was *read* already. `signatures` parses it.

    journalctl goes on after a cursor; of any other command each second is asked for once, by the host's clock.
    """
    limits = (since_seconds, "" if until_seconds is None else until_seconds, read, kinds, characters)
    body = _log_since(services, unit, lines) + script("log_errors", "log_unit")
    return Command.procedure(body, *limits, title="log-unit")


def log_file(
    path: str, *, inode: str, offset: int, mark: str, first: bool, bytes_max: int, kinds: int, characters: int
) -> Command:
    """Prints the errors of a log file that are new since its position. `signatures` parses it.

    With *first* it is the end of the file, and of the one before it, with the last line of each kind.
    """
    values = (path, inode, offset, mark, bytes_max, kinds, characters, "first" if first else "more")
    return Command.procedure(script("log_errors", "log_file"), *values, title="log-file")


def end_of_file(path: str, *, lines: int, bytes_max: int) -> Command:
    """Prints the last lines of a log file, of at most so many bytes. `~/` is the SSH user's home."""
    body = """file=$1
case $file in "~/"*) file=$HOME/${file#"~/"} ;; esac
[ -r "$file" ] || { echo "$1 cannot be read: $(ls -d -- "$file" 2>&1 >/dev/null || echo no permission)" >&2; exit 1; }
tail -c "$3" -- "$file" | tail -n "$2"
"""
    return Command.procedure(body, path, lines, bytes_max, title="end-of-file")


def by_cursor(services: Services) -> bool:
    """Whether the units' logs are read by journalctl, which can go on after what it printed last."""
    return any(PurePosixPath(word).name == "journalctl" for word in services.logs)


def _log_since(services: Services, unit: str, lines: int) -> str:
    """The shell function that prints a unit's log between two times, or after a cursor."""
    if not by_cursor(services):
        values = {"{unit}": quote(unit), "{lines}": str(lines), "{since}": '"$1"', "{until}": '"$2"'}
        return f"by_cursor=''\nlog_since() {{ {_filled(services.logs, values)}; }}\n"
    words = _filled(_without_range(services.logs), {"{unit}": quote(unit)})
    return f"""by_cursor=1
log_since() {{
    if [ -n "$3" ]; then set -- --after-cursor "$3"
    elif [ -n "$2" ]; then set -- --since "@$1" --until "@$2"
    else set -- --since "@$1"; fi
    {words} --output cat --show-cursor --lines {lines} "$@"
}}
"""


def _without_range(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words of journalctl without the times, the number of lines, and the form of the output."""
    kept: list[str] = []
    for word in words:
        if re.search(r"\{(?:since|until|lines)\}", word):
            if "=" not in word and kept and kept[-1].startswith("-"):
                kept.pop()
        elif kept and kept[-1] in ("--output", "-o"):
            kept.pop()
        elif not word.startswith("--output="):
            kept.append(word)
    return tuple(kept)


def _filled(words: tuple[str, ...], values: dict[str, str]) -> str:
    """Quoted words, with shell text in place of what stands in braces in them."""
    filled = []
    for word in words:
        parts = re.split(r"(\{(?:unit|lines|since|until)\})", word)
        filled.append("".join(values.get(part) or (quote(part) if part else "") for part in parts) or "''")
    return " ".join(filled)
