"""The body of a webhook in each format of the source: JSON, or a form with JSON or flat fields."""

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
"""The test call when a webhook is saved: an empty body, or one empty field."""


def charset_of(content_type: str) -> str:
    """The charset of a content type; UTF-8 by default. Raises Rejected for types that no webhook has."""
    kind, *parameters = (part.strip() for part in content_type.lower().split(";"))
    if not _TYPES.fullmatch(kind):
        raise Rejected(
            415, "content_type", "the content type must be JSON or application/x-www-form-urlencoded"
        )
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset":
            try:
                charset_name = codecs.lookup(value.strip().strip('"')).name
            except (LookupError, ValueError):
                charset_name = ""
            if charset_name not in _CHARSETS:
                raise Rejected(415, "content_type", "the charset must be UTF-8")
            return charset_name
    return "utf-8"


def is_check(raw: bytes) -> bool:
    """Whether a body is the empty test call of the source: it is answered, never stored."""
    return len(raw) <= 100 and _CHECK.fullmatch(raw) is not None


def is_json(raw: bytes) -> bool:
    """Whether a body is JSON. A form never begins like this: it would begin with `%7B`.

    The content type is ignored: relays and old webhook rules send JSON with the type of a form.
    """
    return raw.removeprefix(codecs.BOM_UTF8).lstrip()[:1] in (b"{", b"[", b'"')


def json_text(raw: bytes, charset: str) -> str:
    """The text of a JSON body, decoded as UTF-8; *charset* is only the fallback."""
    return _text(raw, charset).removeprefix("\ufeff")


def form_text(parameters: Sequence[Pair], charset: str) -> str:
    """The fields of a form as a JSON object of strings. Raises Rejected for a duplicate field."""
    fields: dict[str, str] = {}
    for name, value in parameters:
        key = _text(name, charset)
        if key in fields:
            raise Rejected(400, "malformed", "duplicate form field")
        fields[key] = _text(value, charset)
    return json.dumps(fields, ensure_ascii=False)


def _text(raw: bytes, charset: str) -> str:
    for encoding in ("utf-8", charset):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise Rejected(400, "malformed", "the body is not UTF-8 text")
