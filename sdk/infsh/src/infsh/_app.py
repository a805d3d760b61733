"""`BaseApp` and the models of its inputs, outputs and setup values."""

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from pydantic import BaseModel, ConfigDict, Field

from ._meta import OutputMeta


class Metadata(BaseModel):
    """Facts about the running call; further ones are extra attributes."""

    model_config = ConfigDict(extra="allow")

    app_id: Optional[str] = None
    app_version_id: Optional[str] = None
    worker_id: Optional[str] = None
    gpu_ids: Optional[list[str]] = None
    task_id: Optional[str] = None
    team_id: Optional[str] = None
    user_id: Optional[str] = None

    def update(self, other: Union[dict[str, Any], BaseModel]) -> None:
        """Take over the fields of ``other``."""
        for name, value in (other.model_dump() if isinstance(other, BaseModel) else other).items():
            setattr(self, name, value)


class BaseAppInput(BaseModel):
    """Base of a function's input; the schema lists the fields as declared."""


class BaseAppSetup(BaseModel):
    """Base of the values that `setup` takes; other values mean another instance."""


class BaseAppOutput(BaseModel):
    """Base of a function's output."""

    output_meta: Optional[OutputMeta] = Field(default=None, description="Sizes of inputs and outputs, for usage")


class StreamDelta(BaseModel):
    """Base of yielded pieces that are sent one by one instead of as a newer whole."""


class LocalContext:
    """What ``self.context`` is where no host runs the app: in your own tests and scripts."""

    task_id: Optional[str] = None
    app_id: Optional[str] = None
    owner_id: Optional[str] = None
    session_id: Optional[str] = None
    attempt = 0
    cancel_requested = False

    @property
    def metadata(self) -> Metadata:
        """Empty."""
        return Metadata()


class _Default:
    """An attribute that the host sets on the instance; this is its value without a host."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        return instance.__dict__.setdefault(self._name, self._make())


def _temporary() -> Path:
    return Path(tempfile.mkdtemp(prefix="infsh-"))


class BaseApp(BaseModel):
    """Subclass it once in ``inference.py``. Every public method with a type-hinted input model is a function.

    Attributes may be set freely on ``self``. ``temp_dir`` is emptied after each call.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="allow", ignored_types=(_Default,))

    if TYPE_CHECKING:

        @property
        def logger(self) -> logging.Logger: ...
        @property
        def context(self) -> LocalContext: ...
        @property
        def temp_dir(self) -> Path: ...
    else:
        logger = _Default(lambda: logging.getLogger("app"))
        context = _Default(LocalContext)
        temp_dir = _Default(_temporary)

        # Hidden from type checkers: apps override them with other signatures and colours.
        async def setup(self) -> None:
            """Called once before the first call. May be a plain function and may take a `BaseAppSetup`."""

        async def unload(self) -> None:
            """Called once when the instance ends."""

    def report_progress(self, current: float, total: float, message: Optional[str] = None) -> None:
        """Tell how far the call is; without a host it is logged."""
        self.logger.info("progress %s/%s %s", current, total, message or "")
