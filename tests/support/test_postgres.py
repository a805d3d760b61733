"""The shared PostgreSQL gives each test a database of its own."""

import psycopg

from tests.support.postgres import Postgres


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
        names = connection.execute("SELECT count(*) FROM pg_database WHERE datname LIKE 'test_%'").fetchone()
    assert names == (1,)
    postgres.drop_database(second)
