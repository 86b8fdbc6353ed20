"""What the `upgrade` of an Alembic migration does to the revision that runs. It is read, never run. Pure."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from handlers.release.sql_marks import Effect, Mark, of_sql

_E, _C, _U = Mark.EXPAND, Mark.CONTRACT, Mark.UNKNOWN
_CALLS: dict[str, Effect] = {
    "create_table": Effect(_E),
    "create_table_comment": Effect(_E),
    "drop_table": Effect(_C, "drops a table"),
    "drop_column": Effect(_C, "drops a column"),
    "rename_table": Effect(_C, "renames"),
    "drop_index": Effect(_U, "drops an index or a trigger"),
    "drop_constraint": Effect(_U, "drops a constraint"),
    "bulk_insert": Effect(_U, "changes rows"),
}
"""Operations whose arguments do not matter."""


def of_python(text: str) -> Iterator[Effect]:
    """The effect of each operation in `upgrade`."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        yield Effect(_U, "it cannot be read as Python")
        return
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "upgrade"]
    if len(found) != 1:
        yield Effect(_U, "it has no function upgrade")
        return
    yield from _of_body(found[0].body)


def _of_body(body: list[ast.stmt]) -> Iterator[Effect]:
    for node in body:
        match node:
            case ast.Pass() | ast.Return(value=None) | ast.Expr(value=ast.Constant()):
                continue
            case ast.Expr(value=ast.Call() as call):
                yield from _of_call(call)
            case ast.With(items=[ast.withitem(context_expr=ast.Call() as call)]) if (
                _name(call) == "batch_alter_table"
            ):
                yield from _of_body(node.body)
            case _:
                yield from _of_other(node)


def _of_other(node: ast.stmt) -> Iterator[Effect]:
    """Something with branches or values: unknown, unless a part of it is certainly contract."""
    yield Effect(_U, "it is more than a list of operations")
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call):
            yield from (effect for effect in _of_call(inner) if effect.mark is _C)


def _of_call(call: ast.Call) -> Iterator[Effect]:
    name = _name(call)
    if name in _CALLS:
        yield _CALLS[name]
    elif name == "add_column":
        yield _added(call)
    elif name == "create_index":
        is_unique = _is(call, "unique", True)
        yield Effect(_U, "makes an index unique") if is_unique or _has(call, "unique") else Effect(_E)
    elif name == "alter_column":
        yield _altered(call)
    elif name == "execute" and (sql := _literal(call)) is not None:
        yield from of_sql(sql)
    else:
        yield Effect(_U, f"calls {name}" if name.isidentifier() else "calls something that is not known")


def _added(call: ast.Call) -> Effect:
    columns = [each for each in call.args if isinstance(each, ast.Call) and _name(each) == "Column"]
    if len(columns) != 1:
        return Effect(_U, "adds a column in a way that is not known")
    column = columns[0]
    if _is(column, "nullable", False) and not _has(column, "server_default"):
        return Effect(_C, "adds a required column")
    parts = {_name(each) for each in column.args if isinstance(each, ast.Call)}
    if parts & {"ForeignKey", "CheckConstraint"} or _has(column, "unique") or _has(column, "primary_key"):
        return Effect(_U, "adds a constraint")
    is_plain = not _has(column, "nullable") or _is(column, "nullable", True) or _is(column, "nullable", False)
    return Effect(_E) if is_plain else Effect(_U, "adds a column in a way that is not known")


def _altered(call: ast.Call) -> Effect:
    if _has(call, "new_column_name"):
        return Effect(_C, "renames")
    if _has(call, "type_"):
        return Effect(_C, "changes the type of a column")
    if _is(call, "nullable", False):
        return Effect(_C, "makes a column required")
    return Effect(_U, "alters a column in a way that is not known")


def _name(call: ast.Call) -> str:
    """The last part of what is called: `add_column` of `op.add_column`."""
    match call.func:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case _:
            return ""


def _has(call: ast.Call, keyword: str) -> bool:
    return any(each.arg in (keyword, None) for each in call.keywords)


def _is(call: ast.Call, keyword: str, value: object) -> bool:
    return any(
        each.arg == keyword and isinstance(each.value, ast.Constant) and each.value.value is value
        for each in call.keywords
    )


def _literal(call: ast.Call) -> str | None:
    """The SQL of `op.execute("...")`, also within `sa.text(...)`; None when it is made of values."""
    match call.args:
        case [ast.Constant(value=str(sql))]:
            return sql
        case [ast.Call(args=[ast.Constant(value=str(sql))]) as inner] if _name(inner) == "text":
            return sql
        case _:
            return None
