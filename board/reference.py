"""The tables of docs/board.md about answers and metrics, made of the models: a test keeps both equal."""

from __future__ import annotations

from pydantic.fields import FieldInfo

from board.alert import Name
from board.metrics.names import METRICS
from board.model import Answer
from board.models import ANSWERS


def metrics_table() -> str:
    """Every metric with its labels and meaning."""
    lines = ["| metric | labels | meaning |", "|---|---|---|"]
    for metric in METRICS:
        labels = [*([] if metric.of_board else ["environment"]), *metric.labels]
        name = f"`{metric.full_name}`" + (" (histogram)" if metric.kind == "histogram" else "")
        lines.append(f"| {name} | {', '.join(labels)} | {metric.help} |")
    return "\n".join(lines)


def alert_names() -> str:
    """The names that an alert can have."""
    return ", ".join(f"`{name}`" for name in Name)


def answers_reference() -> str:
    """Every answer and its parts, with their fields."""
    models: dict[str, type[Answer]] = {}
    for answer in ANSWERS:
        _collect(answer, models)
    return "\n\n".join(_model(model) for model in models.values())


def _collect(model: type[Answer], into: dict[str, type[Answer]]) -> None:
    if model.__name__ in into:
        return
    into[model.__name__] = model
    for field in model.model_fields.values():
        for inner in _models_in(field.annotation):
            _collect(inner, into)


def _models_in(annotation: object) -> list[type[Answer]]:
    if isinstance(annotation, type) and issubclass(annotation, Answer):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]


def _model(model: type[Answer]) -> str:
    lines = [f"**{model.__name__}**: {(model.__doc__ or '').strip()}", ""]
    lines += ["| field | type | meaning |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        meaning = " ".join((field.description or "").split())
        lines.append(f"| `{name}` | {_type(field)} | {meaning} |")
    return "\n".join(lines)


def _type(field: FieldInfo) -> str:
    return _words(field.annotation).replace("|", "or")


def _words(annotation: object) -> str:
    if isinstance(annotation, type) and not getattr(annotation, "__args__", ()):
        return annotation.__name__ if annotation is not type(None) else "null"
    text = str(annotation)
    for noise in ("typing.", "datetime.", "uuid.", "board.models.", "board.release_models."):
        text = text.replace(noise, "")
    return text.replace("Literal", "one of ").replace("NoneType", "null").replace("None", "null")
