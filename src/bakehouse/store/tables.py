"""The schema. Columns stand in the order of the dataclasses' fields in ``core``, so that a row is read by position.

Times are integer microseconds UTC, JSON values are text: both databases then give back exactly what was stored.
There are no foreign keys: ids are never reused, rows below a task are deleted with it, and a hot insert should not
pay for a look-up that cannot fail. ``check_integrity`` looks for what would be left behind.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    text,
)

HEAD = "0001"
"""The schema revision that this code works with."""

metadata = MetaData()


def _text(name: str, *, key: bool = False, null: bool = False) -> Column[str]:
    return Column(name, Text, primary_key=key, nullable=null)


def _big(name: str, *, key: bool = False, null: bool = False) -> Column[int]:
    return Column(name, BigInteger, primary_key=key, nullable=null, autoincrement=False)


def _int(name: str) -> Column[int]:
    return Column(name, Integer, nullable=False)


def _where(condition: str) -> dict[str, Any]:
    """A partial index on both databases. The condition is literal: a planner cannot match it with a parameter."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


tasks = Table(
    "tasks", metadata,
    _text("id", key=True), _text("kind"), _text("owner_id"), _text("user_id"), _text("root_id"),
    Column("status", SmallInteger, nullable=False), _text("lane"), _text("function"), _text("input"),
    _big("created_at"), _big("updated_at"), _text("parent_id", null=True), _int("attempt"), _int("failures"),
    _int("retries"), _text("app_id", null=True), _text("version_id", null=True), _text("app_ref", null=True),
    _text("setup", null=True), _text("session_id", null=True), _text("options", null=True),
    Column("timeout", Float(53), nullable=True), _big("run_at", null=True), _text("idempotency_key", null=True),
    _text("request_hash", null=True), _big("last_seq"), _text("lease_holder", null=True),
    _big("cancel_requested_at", null=True), _big("started_at", null=True), _big("finished_at", null=True),
    _text("output", null=True), _text("error", null=True), _text("error_code", null=True), _text("snapshot", null=True),
)  # fmt: skip

Index("tasks_by_owner", tasks.c.owner_id, tasks.c.id)
Index("tasks_waiting", tasks.c.owner_id, tasks.c.created_at, **_where("status = 2"))
Index("tasks_held", tasks.c.lease_holder, **_where("finished_at IS NULL"))
# Serves both the counts by state and the purge of old tasks; a row enters it once, when it ends.
Index("tasks_ended", tasks.c.status, tasks.c.finished_at, **_where("finished_at IS NOT NULL"))
Index("tasks_by_parent", tasks.c.parent_id, **_where("parent_id IS NOT NULL"))
Index("tasks_in_session", tasks.c.session_id, **_where("session_id IS NOT NULL AND finished_at IS NULL"))
Index(
    "tasks_once", tasks.c.owner_id, tasks.c.idempotency_key, unique=True, **_where("idempotency_key IS NOT NULL")
)  # fmt: skip

events = Table(
    "task_events", metadata,
    _text("task_id", key=True), _big("seq", key=True), _big("at"), _text("kind"),
    Column("status", SmallInteger, nullable=False), _int("attempt"), _text("data", null=True),
    sqlite_with_rowid=False,
)  # fmt: skip

inbox = Table(
    "task_inbox", metadata,
    _text("task_id", key=True), _big("seq", key=True), _big("at"), _text("kind"), _text("data"),
    sqlite_with_rowid=False,
)  # fmt: skip

holders = Table("holders", metadata, _text("holder", key=True), _text("address"), _big("expires_at"))

webhooks = Table(
    "webhook_deliveries", metadata,
    _text("id", key=True), _text("task_id"), _text("owner_id"), _text("url"), _int("tries"), _big("next_at"),
    _text("error", null=True),
)  # fmt: skip
Index("webhooks_due", webhooks.c.next_at, **_where("next_at > 0"))
Index("webhooks_by_task", webhooks.c.task_id)

owners = Table(
    "owners", metadata,
    _text("id", key=True), _text("name"), _big("created_at"), _big("secrets_revision"),
)  # fmt: skip
Index("owners_name", owners.c.name, unique=True)

users = Table("users", metadata, _text("id", key=True), _text("name"), _big("created_at"))

# The name stands here too: it is unique among the users of one owner.
members = Table("members", metadata, _text("owner_id", key=True), _text("name", key=True), _text("user_id"))

keys = Table(
    "keys", metadata,
    _text("id", key=True), _text("owner_id"), _text("user_id"), _text("name"), _text("prefix"), _text("hash"),
    _text("scopes"), _big("created_at"), _big("expires_at", null=True), _big("last_used_at", null=True),
    _big("revoked_at", null=True),
)  # fmt: skip
Index("keys_hash", keys.c.hash, unique=True)
Index("keys_by_owner", keys.c.owner_id)

apps = Table(
    "apps", metadata,
    _text("id", key=True), _text("owner_id"), _text("namespace"), _text("name"), _text("visibility"),
    _big("created_at"), _big("updated_at"), _text("current_version_id", null=True), _text("title"),
    _text("description"), _text("category"), _text("metadata"), _big("deleted_at", null=True),
)  # fmt: skip
Index("apps_name", apps.c.namespace, apps.c.name, unique=True, **_where("deleted_at IS NULL"))
Index("apps_by_owner", apps.c.owner_id, apps.c.id)
Index("apps_public", apps.c.id, **_where("visibility = 'public' AND deleted_at IS NULL"))

versions = Table(
    "app_versions", metadata,
    _text("id", key=True), _text("app_id"), _text("owner_id"), _text("short_id"), _text("digest"), _text("status"),
    _big("created_at"), _text("package_file_id"), _text("manifest"), _text("label", null=True),
    _text("env_key", null=True), _text("functions"), _text("setup_schema", null=True), _text("default_function"),
    _text("build_task_id", null=True), _text("error", null=True),
)  # fmt: skip
Index("versions_short", versions.c.app_id, versions.c.short_id, unique=True)
Index("versions_digest", versions.c.app_id, versions.c.digest, unique=True)
Index("versions_label", versions.c.app_id, versions.c.label, unique=True, **_where("label IS NOT NULL"))
Index("versions_building", versions.c.status, **_where("status = 'building'"))

files = Table(
    "files", metadata,
    _text("id", key=True), _text("owner_id"), _text("capability"), _text("filename"), _text("content_type"),
    _big("size", null=True), Column("public", SmallInteger, nullable=False), _text("category"), _big("created_at"),
    _big("upload_expires_at", null=True), _text("blob_key", null=True), _text("sha256", null=True),
    _text("path", null=True),
)  # fmt: skip
Index("files_capability", files.c.capability, unique=True)
Index("files_by_owner", files.c.owner_id, files.c.id)
Index("files_awaited", files.c.upload_expires_at, **_where("blob_key IS NULL"))

task_files = Table(
    "task_files", metadata,
    _text("task_id", key=True), _text("file_id", key=True), _text("role", key=True), _big("created_at"),
    sqlite_with_rowid=False,
)  # fmt: skip
Index("task_files_by_file", task_files.c.file_id)

sessions = Table(
    "sessions", metadata,
    _text("id", key=True), _text("owner_id"), _text("app_id"), _text("version_id"), _text("status"),
    _int("idle_timeout"), _big("created_at"), _big("expires_at"), _big("updated_at"), _int("call_count"),
    _big("last_call_at", null=True), _big("ended_at", null=True), _text("task_id", null=True),
    _text("worker_id", null=True), _text("ended_reason", null=True),
)  # fmt: skip
Index("sessions_by_owner", sessions.c.owner_id, sessions.c.id)
Index("sessions_active", sessions.c.expires_at, **_where("status = 'active'"))

secrets = Table(
    "secrets", metadata,
    _text("owner_id", key=True), _text("key", key=True), Column("ciphertext", LargeBinary, nullable=False),
    _text("description"), _big("updated_at"),
)  # fmt: skip
