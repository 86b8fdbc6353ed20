"""The keys of an environment file about people: roles, and who must approve a release before it starts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, Field

from handlers.environment.section import Seconds, Section

NAME_MAX = 80


def key_of(name: str) -> str:
    """What makes two names one person: upper and lower case and spaces do not matter."""
    return " ".join(name.split()).casefold()


def _is_a_name(text: str) -> str:
    name = " ".join(text.split())
    if not name or len(name) > NAME_MAX or not name.isprintable():
        raise ValueError(f"{text!r} is no name of a person: write 1 to {NAME_MAX} characters")
    return name


def _are_different(names: tuple[str, ...]) -> tuple[str, ...]:
    keys = [key_of(name) for name in names]
    if twice := [name for name in names if keys.count(key_of(name)) > 1]:
        raise ValueError(f"{twice[0]!r} is named twice")
    return names


Person = Annotated[str, AfterValidator(_is_a_name)]
People = Annotated[tuple[Person, ...], AfterValidator(_are_different)]
RoleName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,39}$")]


class Role(Section):
    """People with the same rights, under a name."""

    name: RoleName
    people: Annotated[People, Field(min_length=1)]


class Approval(Section):
    """Who must approve a release before it starts."""

    needed: Annotated[int, Field(ge=0, le=20)] = 0
    """The number of people who must approve it. 0: none, and a release starts at once."""
    people: People = ()
    """Who may approve. Without people and roles everybody may."""
    roles: tuple[RoleName, ...] = ()
    """The roles whose people may approve as well."""
    own: bool = False
    """Whether the person who asks for a release may be one of those who approve it."""
    expires_seconds: Seconds = 1800
    """So long after the plan it can be approved, and so long after the last approval the release can start."""

    @property
    def is_open_to_all(self) -> bool:
        """Whether everybody may approve."""
        return not self.people and not self.roles

    def approvers(self, roles: Iterable[Role]) -> tuple[str, ...]:
        """The people who may approve, by name, each once; empty when everybody may."""
        return members(self.people, self.roles, roles)


def members(people: Iterable[str], names: Iterable[str], roles: Iterable[Role]) -> tuple[str, ...]:
    """*people* and those of the roles with these *names*, each once."""
    wanted = set(names)
    everybody = [*people, *(person for role in roles if role.name in wanted for person in role.people)]
    return tuple({key_of(person): person for person in reversed(everybody)}.values())[::-1]


def faults(
    roles: tuple[Role, ...], approval: Approval, named: Iterable[tuple[str, Iterable[str]]]
) -> list[str]:
    """What the sections about people do not agree on, one sentence for each fault. *named*: roles, by their key."""
    names = [role.name for role in roles]
    found = [f"roles: two have the name {name!r}" for name in sorted(set(names)) if names.count(name) > 1]
    known = ", ".join(names) or "there are none"
    found += [
        f"{key}: there is no role {name!r} (roles: {known})"
        for key, wanted in (("approval.roles", approval.roles), *named)
        for name in wanted
        if name not in names
    ]
    approvers = approval.approvers(roles)
    if not approval.is_open_to_all and len(approvers) < approval.needed:
        found.append(
            f"approval.needed is {approval.needed}, but only {len(approvers)} people may approve: "
            "no release could ever start"
        )
    return found
