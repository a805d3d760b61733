"""The shared PostgreSQL gives each test a database of its own."""

import psycopg

from tests.support.postgres import Postgres


def _name(url: str) -> str:
    return url.split("@/")[1].split("?", maxsplit=1)[0]


def test_databases_are_fresh_and_dropped(postgres: Postgres) -> None:
    first, second = postgres.create_database(), postgres.create_database()
    with psycopg.connect(first) as connection:
        connection.execute("CREATE TABLE t (x int)")
        version = connection.info.server_version
    assert version >= 150000
    with psycopg.connect(second) as connection:
        tables = connection.execute("SELECT count(*) FROM information_schema.tables WHERE table_name = 't'").fetchone()
    assert tables == (0,)
    postgres.drop_database(first)
    with psycopg.connect(postgres.url()) as connection:
        names = {name for (name,) in connection.execute("SELECT datname FROM pg_database").fetchall()}
    # Other workers of this run have databases in it too.
    assert [_name(url) in names for url in (first, second)] == [False, True]
    postgres.drop_database(second)
