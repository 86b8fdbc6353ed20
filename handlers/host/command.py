"""A command for a host, as a value: its words quoted, its secrets hidden. Pure."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import PurePosixPath

from handlers.errors import Refused


@dataclass(frozen=True)
class Hidden:
    """A secret word: it is sent to the host, and printed as *** everywhere else."""

    word: str

    def __repr__(self) -> str:
        return "***"


Word = str | int | PurePosixPath | Hidden


class Command:
    """A shell command: its words are quoted, and a sequence stops at the first command that fails.

    `changes` tells whether it changes the host: only a command that does not is retried automatically. Fetching git
    objects does not count as a change, because no running process uses them.
    """

    def __init__(self, *words: Word, changes: bool = False) -> None:
        self.script = quoted(words)
        self.changes = changes
        self._shown = quoted(tuple("***" if isinstance(word, Hidden) else word for word in words))

    @classmethod
    def procedure(cls, body: str, *values: Word, title: str, changes: bool = False) -> Command:
        """A shell script *body* with *values* as its $1, $2 …, so that their content is never parsed as shell.

        It prints as its *title* and its values, which keeps the ledger readable.
        """
        command = cls(title, *values, changes=changes)
        command.script = f"(\nset -- {quoted(values)}\n{body}\n)"
        return command

    def then(self, *words: Word | Command) -> Command:
        """This command and, if it succeeds, the next one."""
        next_command = words[0] if words and isinstance(words[0], Command) else None
        if next_command is None:
            next_command = Command(*(word for word in words if not isinstance(word, Command)))
        sequence = Command(changes=self.changes or next_command.changes)
        sequence.script = f"{self.script} && {next_command.script}"
        sequence._shown = f"{self._shown} && {next_command._shown}"
        return sequence

    def __str__(self) -> str:
        return self._shown

    def __repr__(self) -> str:
        return f"<Command {self._shown}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Command) and (self.script, self.changes) == (other.script, other.changes)

    def __hash__(self) -> int:
        return hash((self.script, self.changes))


def quoted(words: tuple[Word, ...]) -> str:
    return " ".join(quote(word) for word in words)


def quote(word: Word) -> str:
    """*word* quoted for the shell. In a path, a leading `~` is the SSH user's home on the host.

    Raises Refused for a NUL byte.
    """
    text = word.word if isinstance(word, Hidden) else str(word)
    if "\0" in text:
        raise Refused("a word of a command contains a NUL byte, which no shell accepts")
    if isinstance(word, PurePosixPath) and word.parts[:1] == ("~",):
        below = "/".join(word.parts[1:])
        return f'"$HOME"/{shlex.quote(below)}' if below else '"$HOME"'
    return shlex.quote(text)
