"""Every setting of a server, once: its default, its unit, its bounds and what it does."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from bakehouse.settings.units import (
    Count,
    MaybeCount,
    MaybeSeconds,
    MaybeSize,
    MaybeText,
    Number,
    Seconds,
    Size,
)

DEFAULT_HOME = Path("~/.bakehouse")


def _texts(value: Any) -> Any:
    """A list as TOML writes it, or as an environment variable can: ``a,b`` or a JSON array."""
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.lstrip().startswith("[") else [part.strip() for part in value.split(",")]


MaybePath = Annotated[
    Path | None, BeforeValidator(lambda value: Path(value).expanduser().absolute() if value else None)
]
Texts = Annotated[tuple[str, ...], BeforeValidator(_texts)]


def _mapping(value: Any) -> Any:
    """A table as TOML writes it, or as an environment variable can: a JSON object."""
    return json.loads(value) if isinstance(value, str) else value


class McpServerSettings(BaseModel):
    """One table ``[mcp_servers.NAME]``: a ``command`` to start, or the ``url`` of a server that runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: tuple[str, ...] = ()
    url: str = ""
    environment: dict[str, str] = Field({}, repr=False)
    headers: dict[str, str] = Field({}, repr=False)
    timeout: Seconds = Field(60, gt=0)

    @model_validator(mode="after")
    def _one_way(self) -> McpServerSettings:
        if bool(self.command) == bool(self.url):
            raise ValueError("needs either a command or a url")
        if self.environment and not self.command:
            raise ValueError("environment goes with a command")
        if self.headers and not self.url:
            raise ValueError("headers go with a url")
        return self


McpTable = Annotated[dict[str, McpServerSettings], BeforeValidator(_mapping)]


def is_loopback(host: str) -> bool:
    """Whether *host* can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Settings(BaseModel):
    """What an operator can decide. Frozen; read once by `load_settings`, handed down by wiring."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    # Where
    home: Path = Field(DEFAULT_HOME, description="The data directory: database, files, environments, keys.")
    # Before host, whose check reads it.
    allow_public: bool = Field(
        False, description="Allow a listening address that other machines can reach. Every request needs a key anyway."
    )
    host: str = Field("127.0.0.1", min_length=1, description="The address to listen on.")
    port: Count = Field(8787, ge=0, le=65535, description="The TCP port to listen on; 0 takes a free one.")
    public_url: MaybeText = Field(
        None, description="The URL under which clients reach the server, where a proxy stands before it."
    )
    allow_origins: Texts = Field(("*",), description="Origins that browsers may call from (CORS).")
    # Its password must not reach a log by way of repr().
    database_url: MaybeText = Field(
        None,
        repr=False,
        description="`sqlite:////path` or `postgresql://...`; the default is SQLite in the data directory.",
    )

    blob_dir: MaybePath = Field(
        None, description="Where file contents are kept; servers on one database share it. Default: in `home`."
    )
    secret_file: MaybePath = Field(
        None,
        description="The key that seals secrets and signs URLs; servers on one database share it. Default: in `home`.",
    )

    # Queue and tasks
    max_queue: Count = Field(10_000, ge=1, description="Tasks that may wait on the whole server; more answer 429.")
    max_queue_per_owner: Count = Field(5_000, ge=1, description="Tasks that may wait per owner; more answer 429.")
    task_timeout: MaybeSeconds = Field(
        None, gt=0, json_schema_extra={"unit": "s"}, description="Deadline of a task that names none; none is no limit."
    )
    cancel_grace: Seconds = Field(
        30, ge=0, json_schema_extra={"unit": "s"}, description="Time for a cancelled call to end before it is killed."
    )
    drain_grace: Seconds = Field(
        20, ge=0, json_schema_extra={"unit": "s"}, description="Time for running tasks to finish when the server stops."
    )
    lease_seconds: Seconds = Field(
        15, ge=2, json_schema_extra={"unit": "s"}, description="Silence after which a server's tasks are taken over."
    )

    # Instances
    max_instances: MaybeCount = Field(
        None, ge=1, description="App instances at one time; the default is twice the CPU count, at least 4."
    )
    prefetch: Count = Field(16, ge=0, le=1024, description="Calls that an instance with short calls may hold ready.")
    idle_timeout: Seconds = Field(
        300, ge=0, json_schema_extra={"unit": "s"}, description="Time after which an idle instance is stopped."
    )
    startup_timeout: Seconds = Field(
        120, gt=0, json_schema_extra={"unit": "s"}, description="Time for an app's process to start and be imported."
    )
    setup_timeout: Seconds = Field(600, gt=0, json_schema_extra={"unit": "s"}, description="Time for an app's `setup`.")
    isolation: Literal["auto", "off"] = Field(
        "auto", description="`auto` confines apps as far as this machine can; `off` is for debugging apps only."
    )
    memory_limit: MaybeSize = Field(
        None,
        gt=0,
        json_schema_extra={"unit": "bytes"},
        description="Memory of one instance and its children; the default is three quarters of the machine's.",
    )
    process_limit: MaybeCount = Field(512, ge=1, description="Processes and children of one instance.")
    file_size_limit: MaybeSize = Field(
        None,
        gt=0,
        json_schema_extra={"unit": "bytes"},
        description="Size of one file that an instance writes; the default is 8 GiB.",
    )
    cpu_time_limit: MaybeSeconds = Field(
        None,
        gt=0,
        json_schema_extra={"unit": "s"},
        description="CPU time of one instance over its whole life; none is no limit.",
    )
    memory_budget: MaybeSize = Field(
        None,
        gt=0,
        json_schema_extra={"unit": "bytes"},
        description="Memory of all instances together; the default is nine tenths of the machine's.",
    )

    # Local models and inferlets
    inferlets: Literal["auto", "on", "off"] = Field(
        "auto", description="Whether the server runs inferlets; `auto` does where models are recorded."
    )
    inferlet_instances: Count = Field(512, ge=1, description="Inferlets that run at one time, their children included.")
    inferlet_instances_per_owner: Count = Field(128, ge=1, description="The same for each owner.")
    inferlet_memory: Size = Field(
        256 * 2**20, ge=32 * 2**20, json_schema_extra={"unit": "bytes"}, description="Memory of one inferlet."
    )
    inferlet_memory_per_owner: Size = Field(
        8 * 2**30,
        gt=0,
        json_schema_extra={"unit": "bytes"},
        description="Memory that an owner's running inferlets may have together, by their own limits.",
    )
    inferlet_programs_per_owner: Size = Field(
        8 * 2**30,
        gt=0,
        json_schema_extra={"unit": "bytes"},
        description="Bytes of the inferlets that are installed for an owner.",
    )
    inferlet_cpu_time: Seconds = Field(
        60, gt=0, json_schema_extra={"unit": "s"}, description="CPU time of one inferlet; waiting costs nothing."
    )
    inferlet_wall_time: Seconds = Field(
        3600, gt=0, json_schema_extra={"unit": "s"}, description="Time after which a running inferlet is ended."
    )
    inferlet_messages: Size = Field(
        16 * 2**20,
        gt=0,
        json_schema_extra={"unit": "bytes"},
        description="What one task may send its caller in messages; they are kept with the task.",
    )
    inferlet_files: Size = Field(
        2**30, gt=0, json_schema_extra={"unit": "bytes"}, description="The same in files, which are kept as files are."
    )
    mcp_servers: McpTable = Field(
        {}, repr=False, description="MCP servers that inferlets may use; a table each: `command` or `url`."
    )

    # HTTP
    max_body: Size = Field(
        16 * 2**20, gt=0, json_schema_extra={"unit": "bytes"}, description="Size of a JSON request; more answers 413."
    )
    max_upload: Size = Field(
        5 * 2**30, gt=0, json_schema_extra={"unit": "bytes"}, description="Size of an uploaded file."
    )
    upload_url_ttl: Seconds = Field(
        3600, gt=0, json_schema_extra={"unit": "s"}, description="Time for which an upload URL is good."
    )
    allow_private_webhooks: bool = Field(
        False, description="Allow webhooks to loopback, link-local and private addresses."
    )

    # Keeping
    retention_tasks: Number = Field(
        30,
        ge=0,
        json_schema_extra={"unit": "days"},
        description="How long finished tasks and their logs are kept; 0 keeps them for ever.",
    )
    retention_files: Number = Field(
        30,
        ge=0,
        json_schema_extra={"unit": "days"},
        description="How long files are kept that are neither public nor packages; 0 keeps them for ever.",
    )

    # Logs
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto` is `console` in a terminal and `json` elsewhere."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least level that is logged."
    )

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @field_validator("host")
    @classmethod
    def _public_on_purpose(cls, host: str, info: ValidationInfo) -> str:
        if not is_loopback(host) and not info.data.get("allow_public"):
            raise ValueError(
                "other machines can reach this address; if that is meant, say so with "
                "--allow-public, BAKEHOUSE_ALLOW_PUBLIC=true or allow_public = true"
            )
        return host

    @field_validator("public_url")
    @classmethod
    def _http_url(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return url.rstrip("/") if url else url

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("sqlite:///", "postgresql://", "postgres://")):
            raise ValueError("must start with sqlite:/// or postgresql://")
        return url

    @field_validator("inferlet_memory_per_owner")
    @classmethod
    def _room_for_one(cls, memory: int, info: ValidationInfo) -> int:
        one = info.data.get("inferlet_memory", 0)
        if memory < one:
            raise ValueError(f"must be at least inferlet_memory ({one}): no inferlet could ever run")
        return memory

    @property
    def url(self) -> str:
        """The URL that clients are told. With ``port = 0`` it is valid only after the port is known."""
        if self.public_url:
            return self.public_url
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def blobs(self) -> Path:
        """Where file contents are kept, the default filled in."""
        return self.blob_dir or self.home / "blobs"

    @property
    def secret(self) -> Path:
        """The file of the server's secret, the default filled in."""
        return self.secret_file or self.home / "secret.key"

    @property
    def database(self) -> str:
        """The database's URL, the default filled in."""
        return self.database_url or f"sqlite:///{self.home / 'bakehouse.db'}"

    @property
    def endpoint_file(self) -> Path:
        """Where a running server leaves its URL, its first key and its pid for commands of the same user."""
        return self.home / "endpoint.json"
