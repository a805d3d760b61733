"""Apps and their immutable versions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Function:
    """One callable of an app, as its schema probe found it. Schemas are JSON Schema objects."""

    name: str
    description: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    kind: str = "run"
    annotations: dict[str, Any] = field(default_factory=dict)
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """What one instance may use. Bytes, counts and seconds; None is the server's default."""

    memory: int | None = None
    processes: int | None = None
    file_size: int | None = None
    cpu_time: int | None = None


@dataclass(frozen=True, slots=True)
class Resources:
    """What an instance needs of the machine. Bytes; ``gpu_type`` none means no GPU."""

    gpu_count: int = 0
    gpu_vram: int = 0
    gpu_type: str = "none"
    ram: int = 0


@dataclass(frozen=True, slots=True)
class Requirement:
    """A secret that the app reads as an environment variable."""

    key: str
    description: str = ""
    optional: bool = False


INFERLET = "inferlet"
"""The ``kernel`` of inferlets, and the kind of their tasks."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """``inf.yml`` as data, or as much of ``Pie.toml`` as the platform needs. Times are seconds."""

    name: str
    namespace: str | None = None
    description: str = ""
    category: str = "other"
    kernel: str = "python"
    label: str | None = None
    default_function: str | None = None
    resources: Resources = Resources()
    env: dict[str, str] = field(default_factory=dict)
    secrets: tuple[Requirement, ...] = ()
    concurrency: int = 1
    retries: int = 1
    timeout: float | None = None
    idle_timeout: float | None = None
    shared: bool = False
    visibility: str = "private"
    limits: Limits = Limits()
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Version:
    """An immutable version. ``status`` is ``building``, ``ready`` or ``failed``.

    ``digest`` is the SHA-256 of the package's content; ``short_id`` is what ``@version`` names first, ``label`` second.
    ``env_key`` names the cached environment (a hash of requirements, Python and our wheels).
    """

    id: str
    app_id: str
    owner_id: str
    short_id: str
    digest: str
    status: str
    created_at: int
    package_file_id: str
    manifest: Manifest
    label: str | None = None
    env_key: str | None = None
    functions: tuple[Function, ...] = ()
    setup_schema: dict[str, Any] | None = None
    default_function: str = "run"
    build_task_id: str | None = None
    error: str | None = None

    @property
    def kind(self) -> str:
        """The kind of the tasks that run it."""
        return INFERLET if self.manifest.kernel == INFERLET else "app"

    def function(self, name: str) -> Function | None:
        """The function called *name*, or None."""
        return next((f for f in self.functions if f.name == name), None)


@dataclass(frozen=True, slots=True)
class App:
    """``namespace`` is the owner's name; ``current_version_id`` is what ``@latest`` means, None until one is built."""

    id: str
    owner_id: str
    namespace: str
    name: str
    visibility: str
    created_at: int
    updated_at: int
    current_version_id: str | None = None
    title: str = ""
    description: str = ""
    category: str = "other"
    metadata: dict[str, Any] = field(default_factory=dict)
    deleted_at: int | None = None
