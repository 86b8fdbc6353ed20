"""A command for a host as a value: quoted, with its secrets hidden, and aware of what it changes. Pure."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import PurePosixPath

from handlers.errors import Refused


@dataclass(frozen=True)
class Hidden:
    """A word that reaches the host and never a screen, a log or the ledger."""

    word: str

    def __repr__(self) -> str:
        return "***"


Word = str | int | PurePosixPath | Hidden


class Command:
    """Words for a POSIX shell, each quoted; several in a row stop at the first that fails.

    `changes` says whether the host is another one afterwards: only a command that does not is repeated
    without thinking. Fetching objects into a repository is no change, because nothing that runs sees it.
    """

    def __init__(self, *words: Word, changes: bool = False) -> None:
        self.script = quoted(words)
        self.changes = changes
        self._shown = quoted(tuple("***" if isinstance(word, Hidden) else word for word in words))

    @classmethod
    def procedure(cls, body: str, *values: Word, title: str, changes: bool = False) -> Command:
        """A piece of shell with *values* as its $1, $2 …: they are data there, whatever they contain.

        It prints as its *title* and its values, because nobody wants to read the piece in a ledger.
        """
        command = cls(title, *values, changes=changes)
        command.script = f"(\nset -- {quoted(values)}\n{body}\n)"
        return command

    def then(self, *words: Word | Command) -> Command:
        """This command and, when it succeeds, the next."""
        following = words[0] if words and isinstance(words[0], Command) else None
        if following is None:
            following = Command(*(word for word in words if not isinstance(word, Command)))
        both = Command(changes=self.changes or following.changes)
        both.script = f"{self.script} && {following.script}"
        both._shown = f"{self._shown} && {following._shown}"
        return both

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
    """A word as the shell must read it; a *path* below `~` means the SSH user's home on the host."""
    text = word.word if isinstance(word, Hidden) else str(word)
    if "\0" in text:
        raise Refused("a word for a host holds a zero byte: no shell can take it")
    if isinstance(word, PurePosixPath) and word.parts[:1] == ("~",):
        below = "/".join(word.parts[1:])
        return f'"$HOME"/{shlex.quote(below)}' if below else '"$HOME"'
    return shlex.quote(text)
