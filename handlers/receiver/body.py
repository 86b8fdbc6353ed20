"""The body of a webhook in every form that the source has: JSON, or a form that carries JSON or flat fields."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Sequence

from handlers.receiver.rejected import Rejected
from handlers.receiver.signature import Pair

_TYPES = re.compile(
    r"(?:application/(?:[\w.-]+\+)?json|text/(?:json|plain|javascript)"
    r"|application/x-www-form-urlencoded|application/octet-stream|)"
)
_CHARSETS = {"utf-8", "ascii", "iso8859-1", "cp1252"}
_CHECK = re.compile(rb'\s*|\{\s*"\w{1,40}"\s*:\s*"\s*"\s*\}\s*|\w{1,40}=(?:\+|%20|\s)*')
"""What is sent when a webhook is saved: nothing at all, or one field with nothing in it."""


def charset_of(content_type: str) -> str:
    """The character set that a content type names, UTF-8 without one. Refuses types that are no webhook."""
    kind, *parameters = (part.strip() for part in content_type.lower().split(";"))
    if not _TYPES.fullmatch(kind):
        raise Rejected(
            415, "content_type", "the content type must be JSON or application/x-www-form-urlencoded"
        )
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset":
            try:
                found = codecs.lookup(value.strip().strip('"')).name
            except (LookupError, ValueError):
                found = ""
            if found not in _CHARSETS:
                raise Rejected(415, "content_type", "the character set must be UTF-8")
            return found
    return "utf-8"


def is_check(raw: bytes) -> bool:
    """Whether a body is the empty sample by which the source tries an address: answered, never kept."""
    return len(raw) <= 100 and _CHECK.fullmatch(raw) is not None


def is_json(raw: bytes) -> bool:
    """Whether a body is JSON itself. A form never begins like this: it would say `%7B`.

    The content type is not asked: relays and old rules send JSON under the name of a form.
    """
    return raw.removeprefix(codecs.BOM_UTF8).lstrip()[:1] in (b"{", b"[", b'"')


def json_text(raw: bytes, charset: str) -> str:
    """The text of a JSON body. It is UTF-8, whatever the content type says, unless it cannot be."""
    return _text(raw, charset).removeprefix("\ufeff")


def form_text(parameters: Sequence[Pair], charset: str) -> str:
    """A form's fields as one JSON object of texts, to be read like any other body."""
    fields: dict[str, str] = {}
    for name, value in parameters:
        key = _text(name, charset)
        if key in fields:
            raise Rejected(
                400, "malformed", "a field of the form stands twice, so nobody can say which is meant"
            )
        fields[key] = _text(value, charset)
    return json.dumps(fields, ensure_ascii=False)


def _text(raw: bytes, charset: str) -> str:
    for encoding in ("utf-8", charset):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise Rejected(400, "malformed", "the body is not UTF-8 text")
