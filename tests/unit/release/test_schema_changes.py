"""What a migration does to the revision that runs. In doubt nothing is called expand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.release.schema_changes import TEXT_MAX, Change, FileChange, Mark, Migration, mark, one_way

EXPAND_SQL = [
    "CREATE TABLE a (id int PRIMARY KEY, name text NOT NULL);",
    "create table if not exists a (id int);",
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON a (b);",
    "ALTER TABLE a ADD COLUMN b text;",
    "ALTER TABLE ONLY a ADD b numeric(10, 2), ADD COLUMN IF NOT EXISTS c int NOT NULL DEFAULT 0;",
    "BEGIN; SET LOCAL lock_timeout = '5s'; ALTER TYPE s ADD VALUE 'x'; COMMENT ON TABLE a IS 'DROP TABLE a'; COMMIT;",
    "CREATE VIEW v AS SELECT 1; -- DROP TABLE a;\n/* DROP TABLE a; */",
]
CONTRACT_SQL = [
    ("DROP TABLE a;", "drops a table"),
    ("DROP MATERIALIZED VIEW v;", "drops a view"),
    ("ALTER TABLE a DROP COLUMN b;", "drops a column"),
    ("ALTER TABLE a ADD COLUMN c int, DROP b;", "drops a column"),
    ("ALTER TABLE a RENAME COLUMN b TO c;", "renames"),
    ("ALTER TABLE a RENAME TO b;", "renames"),
    ("ALTER VIEW a RENAME TO b;", "renames"),
    ("ALTER TABLE a ALTER COLUMN b TYPE bigint;", "changes the type of a column"),
    ("ALTER TABLE a ALTER b SET DATA TYPE bigint;", "changes the type of a column"),
    ("ALTER TABLE a ALTER COLUMN b SET NOT NULL;", "makes a column required"),
    ("ALTER TABLE a ADD COLUMN b int NOT NULL;", "adds a required column"),
    ("TRUNCATE a;", "empties a table"),
    ("DELETE FROM a;", "deletes rows"),
    ("REVOKE ALL ON a FROM b;", "takes rights away"),
    ("CREATE TABLE b (id int); DROP TABLE a;", "drops a table"),
    ("UPDATE a SET b = 1; DROP TABLE a;", "drops a table"),
]
UNKNOWN_SQL = [
    "",
    "-- nothing",
    "UPDATE a SET b = 1;",
    "INSERT INTO a VALUES (1);",
    "CREATE UNIQUE INDEX i ON a (b);",
    "CREATE TABLE b AS SELECT * FROM a;",
    "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$;",
    "DO $$ BEGIN DROP TABLE a; END $$;",
    "DO $x$ BEGIN EXECUTE 'DROP TABLE a; CREATE TABLE b ()'; END $x$;",
    "ALTER TABLE a ADD CONSTRAINT c CHECK (b > 0);",
    "ALTER TABLE a ADD COLUMN b int REFERENCES c (id);",
    "ALTER TABLE a DROP CONSTRAINT c;",
    "ALTER TABLE a ALTER COLUMN b DROP NOT NULL;",
    "DROP INDEX i;",
    "VACUUM a;",
    "COMMENT ON TABLE a IS E'\\''; DROP TABLE b; COMMENT ON TABLE a IS 'x';",
    "CREATE TABLE a (id int); SELECT f();",
    "CREATE TABLE a (id int); \x00",
]
EXPAND_OPS = [
    'op.create_table("a", sa.Column("id", sa.Integer(), nullable=False))',
    'op.add_column("a", sa.Column("b", sa.Text()))',
    'op.add_column("a", sa.Column("b", sa.Text(), nullable=True))',
    'op.add_column("a", sa.Column("b", sa.Integer(), nullable=False, server_default="0"))',
    'op.create_index("i", "a", ["b"])',
    'op.execute("CREATE INDEX i ON a (b)")',
    'op.execute(sa.text("CREATE INDEX i ON a (b)"))',
    '"""Words."""\n    op.create_table("a")\n    return',
    'with op.batch_alter_table("a") as batch:\n        batch.add_column(sa.Column("b", sa.Text()))',
]
CONTRACT_OPS = [
    ('op.drop_column("a", "b")', "drops a column"),
    ('op.drop_table("a")', "drops a table"),
    ('op.rename_table("a", "b")', "renames"),
    ('op.alter_column("a", "b", new_column_name="c")', "renames"),
    ('op.alter_column("a", "b", type_=sa.BigInteger())', "changes the type of a column"),
    ('op.alter_column("a", "b", nullable=False)', "makes a column required"),
    ('op.add_column("a", sa.Column("b", sa.Integer(), nullable=False))', "adds a required column"),
    ('op.execute("DROP TABLE a")', "drops a table"),
    ("for name in NAMES:\n        op.drop_table(name)", "drops a table"),
    ('if True:\n        op.drop_table("a")\n    op.create_table("b")', "drops a table"),
    ('with op.batch_alter_table("a") as batch:\n        batch.drop_column("b")', "drops a column"),
]
UNKNOWN_OPS = [
    "pass",
    'op.execute(f"DROP TABLE {name}")',
    "op.execute(SQL)",
    'op.execute("UPDATE a SET b = 1")',
    'op.create_index("i", "a", ["b"], unique=True)',
    'op.create_index("i", "a", ["b"], **options)',
    'op.add_column("a", column)',
    'op.add_column("a", sa.Column("b", sa.Integer(), sa.ForeignKey("c.id")))',
    'op.add_column("a", sa.Column("b", sa.Integer(), nullable=REQUIRED))',
    'op.alter_column("a", "b", server_default=None)',
    'op.drop_constraint("c", "a")',
    "op.bulk_insert(table, [])",
    "session = Session(bind=op.get_bind())",
    "for name in NAMES:\n        op.create_table(name)",
    "helper()",
    "import_everything[0]()",
]


def sql(text: str | None, change: FileChange = FileChange.ADDED, path: str = "migrations/1.sql") -> Migration:
    """The mark of one SQL file."""
    [found] = mark([Change(path=path, change=change, text=text)])
    return found


def python(body: str) -> Migration:
    """The mark of an Alembic migration whose upgrade has this body."""
    text = f"import sqlalchemy as sa\nfrom alembic import op\n\n\ndef upgrade() -> None:\n    {body}\n\n\n"
    return sql(f'{text}def downgrade():\n    op.drop_table("a")\n', path="alembic/versions/1_a.py")


@pytest.mark.parametrize("text", EXPAND_SQL)
def test_sql_that_only_adds_is_expand(text: str) -> None:
    """What comments and literals contain does not count."""
    assert sql(text) == Migration(path="migrations/1.sql", mark=Mark.EXPAND, why="")


@pytest.mark.parametrize(("text", "why"), CONTRACT_SQL)
def test_sql_that_takes_away_is_contract_and_says_what(text: str, why: str) -> None:
    """One such statement is enough, whatever stands beside it."""
    found = sql(text)
    assert (found.mark, found.why) == (Mark.CONTRACT, why)
    assert one_way([found]) == (found,)


@pytest.mark.parametrize("text", UNKNOWN_SQL)
def test_sql_that_is_not_recognized_is_unknown(text: str) -> None:
    """Never expand, and it does not keep a release from going back."""
    found = sql(text)
    assert found.mark is Mark.UNKNOWN, found
    assert found.why
    assert one_way([found]) == ()


@pytest.mark.parametrize("body", EXPAND_OPS)
def test_an_upgrade_that_only_adds_is_expand(body: str) -> None:
    """Its downgrade does not count."""
    assert python(body).mark is Mark.EXPAND


@pytest.mark.parametrize(("body", "why"), CONTRACT_OPS)
def test_an_upgrade_that_takes_away_is_contract(body: str, why: str) -> None:
    """Also in a loop or a branch, which is not run."""
    found = python(body)
    assert found.mark is Mark.CONTRACT, found
    assert why in found.why


@pytest.mark.parametrize("body", UNKNOWN_OPS)
def test_an_upgrade_that_is_not_recognized_is_unknown(body: str) -> None:
    """Values, helpers, loops: nobody runs them to find out."""
    assert python(body).mark is Mark.UNKNOWN


@pytest.mark.parametrize(
    ("text", "change", "path"),
    [
        ("CREATE TABLE a ();", FileChange.CHANGED, "migrations/1.sql"),
        (None, FileChange.REMOVED, "migrations/1.sql"),
        (None, FileChange.ADDED, "migrations/1.sql"),
        ("CREATE TABLE a ();", FileChange.ADDED, "migrations/1.yaml"),
        ("def upgrade(:", FileChange.ADDED, "alembic/versions/1.py"),
        ("class Migration: operations = []", FileChange.ADDED, "migrations/0001_initial.py"),
        ("(" * 20_000, FileChange.ADDED, "alembic/versions/1.py"),
    ],
)
def test_a_file_that_cannot_be_judged_is_unknown(text: str | None, change: FileChange, path: str) -> None:
    """A changed, removed, too long or foreign one; broken text ends nothing."""
    assert sql(text, change, path).mark is Mark.UNKNOWN


@given(st.text(max_size=200))
def test_no_text_breaks_it(text: str) -> None:
    """It comes from a repository, and is data."""
    for path in ("migrations/1.sql", "alembic/versions/1.py"):
        assert sql(text, path=path).mark in Mark


@given(st.text(max_size=100))
def test_whatever_stands_beside_it_a_drop_is_never_expand(text: str) -> None:
    """A comment or a literal that is open may hide it, and then it is unknown."""
    assert (
        sql(f"{text};\nDROP TABLE a;").mark is not Mark.EXPAND
        or "--" in text
        or "'" in text
        or "*" in text
        or "$" in text
    )


def test_a_mark_of_a_newer_program_is_unknown() -> None:
    """A stored plan is read by an older program as well."""
    assert Migration.from_json({"path": "a", "mark": "reversible"}).mark is Mark.UNKNOWN
    assert Migration.from_json({"path": "a", "mark": "contract", "why": "x", "new": 1}).sentence == "a (x)"


def test_a_long_file_has_a_bound() -> None:
    """What a host sends of one file."""
    assert TEXT_MAX < 100_000
