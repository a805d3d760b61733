"""Apps and their versions as the inference.sh clients read them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from bakehouse.api.common.body import Body, Part, Text
from bakehouse.core.app import App, Version
from bakehouse.core.clock import rfc3339
from bakehouse.core.ids import short_id
from bakehouse.service.apps import AppChange

FROM_PACKAGE = (
    "metadata", "repository", "setup_schema", "input_schema", "output_schema", "functions", "default_function", "env",
    "kernel", "required_secrets", "required_credentials", "resources", "label", "short_id",
)  # fmt: skip
"""Parts of a version that published clients may send and that the package says itself."""


class NewVersion(Part):
    """The version to make. Only the package counts: everything else is read from it."""

    package_uri: Text = Field(min_length=1, max_length=4096, description="The uri of an uploaded zip or tar.gz.")
    metadata: Any = None
    repository: Any = None
    setup_schema: Any = None
    input_schema: Any = None
    output_schema: Any = None
    functions: Any = None
    default_function: Any = None
    env: Any = None
    kernel: Any = None
    required_secrets: Any = None
    required_credentials: Any = None
    resources: Any = None
    label: Any = None
    short_id: Any = None

    def ignored(self) -> list[str]:
        """Names of what was sent and is taken from the package instead."""
        return [name for name in FROM_PACKAGE if getattr(self, name)]


class NewApp(Body):
    """A deploy: the package's ``inf.yml`` has the last word on what the app is."""

    version: NewVersion
    id: Text | None = Field(None, description="Accepted without effect: the name in inf.yml says which app it is.")
    namespace: Text | None = Field(None, max_length=64, description="Your own, or none.")
    name: Text | None = Field(None, max_length=64)
    title: Text | None = Field(None, max_length=200)
    description: Text | None = Field(None, max_length=20_000)
    category: Text | None = Field(None, max_length=64, description="Taken from inf.yml.")
    images: Any = Field(None, description="Not kept.")
    tags: Any = Field(None, description="Not kept; metadata in inf.yml is.")
    preserve_current_version: bool | None = Field(None, description="Do not let @latest mean this version.")

    def ignored(self) -> list[str]:
        """Names of top-level fields that were sent and have no effect."""
        return [name for name in ("id", "category", "images", "tags") if getattr(self, name)]


class ChangeApp(Body):
    """Fields to change; absent ones and nulls stay as they are."""

    title: Text | None = Field(None, max_length=200)
    description: Text | None = Field(None, max_length=20_000)
    category: Text | None = Field(None, max_length=64)
    visibility: Literal["private", "public"] | None = None
    metadata: dict[str, Any] | None = None

    def change(self) -> AppChange:
        """As the service understands it."""
        return AppChange(self.title, self.description, self.category, self.visibility, self.metadata)


class Visibility(Body):
    """Who may run an app."""

    visibility: Literal["private", "public"]


class FunctionShape(BaseModel):
    """One callable of an app; schemas are JSON Schema."""

    name: str
    description: str
    kind: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    capabilities: list[str]
    annotations: dict[str, Any]


class VersionShape(BaseModel):
    """An immutable version; ``status`` is building, ready or failed. Schemas are the default function's."""

    id: str
    short_id: str
    created_at: str
    updated_at: str
    app_id: str
    label: str | None
    digest: str
    status: str
    error: str | None
    build_task_id: str | None
    default_function: str
    functions: list[FunctionShape]
    input_schema: dict[str, Any] | None
    output_schema: dict[str, Any] | None
    setup_schema: dict[str, Any] | None
    kernel: str
    resources: dict[str, Any]
    required_secrets: list[dict[str, Any]]
    concurrency: int
    retries: int
    timeout: float | None
    shared: bool
    metadata: dict[str, Any]


class AppShape(BaseModel):
    """An app; ``version`` is the current one, None before the first build is ready."""

    id: str
    short_id: str
    created_at: str
    updated_at: str
    team_id: str
    namespace: str
    name: str
    ref: str
    title: str
    description: str
    category: str
    visibility: str
    version_id: str | None
    metadata: dict[str, Any]
    version: VersionShape | None = None


class DeployedShape(AppShape):
    """The app after a deploy; ``version`` is the one that was deployed."""

    build_task_id: str | None = Field(description="The task to follow until the version is ready.")


def version_shape(version: Version) -> dict[str, Any]:
    """*version* with its functions. Values of ``env`` are left out: they are between the app and its author."""
    manifest = version.manifest
    default = version.function(version.default_function)
    return {
        "id": version.id,
        "short_id": version.short_id,
        "created_at": rfc3339(version.created_at),
        "updated_at": rfc3339(version.created_at),
        "app_id": version.app_id,
        "label": version.label,
        "digest": version.digest,
        "status": version.status,
        "error": version.error,
        "build_task_id": version.build_task_id,
        "default_function": version.default_function,
        "functions": [_function_shape(function) for function in version.functions],
        "input_schema": default.input_schema if default else None,
        "output_schema": default.output_schema if default else None,
        "setup_schema": version.setup_schema,
        "kernel": manifest.kernel,
        "resources": {
            "gpu": {
                "count": manifest.resources.gpu_count,
                "vram": manifest.resources.gpu_vram,
                "type": manifest.resources.gpu_type,
            },
            "ram": manifest.resources.ram,
        },
        "required_secrets": [
            {"key": secret.key, "description": secret.description, "optional": secret.optional}
            for secret in manifest.secrets
        ],
        "concurrency": manifest.concurrency,
        "retries": manifest.retries,
        "timeout": manifest.timeout,
        "shared": manifest.shared,
        "metadata": manifest.metadata,
    }


def _function_shape(function: Any) -> dict[str, Any]:
    return {
        "name": function.name,
        "description": function.description,
        "kind": function.kind,
        "input_schema": function.input_schema,
        "output_schema": function.output_schema,
        "capabilities": list(function.capabilities),
        "annotations": function.annotations,
    }


def app_shape(app: App, version: Version | None = None) -> dict[str, Any]:
    """*app*, with *version* inside where it is given."""
    shape: dict[str, Any] = {
        "id": app.id,
        "short_id": short_id(app.id),
        "created_at": rfc3339(app.created_at),
        "updated_at": rfc3339(app.updated_at),
        "team_id": app.owner_id,
        "namespace": app.namespace,
        "name": app.name,
        "ref": f"{app.namespace}/{app.name}",
        "title": app.title,
        "description": app.description,
        "category": app.category,
        "visibility": app.visibility,
        "version_id": app.current_version_id,
        "metadata": app.metadata,
    }
    if version is not None:
        shape["version"] = version_shape(version)
    return shape
