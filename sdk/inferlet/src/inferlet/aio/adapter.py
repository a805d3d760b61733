"""LoRA adapters: small weights added to a model's own.

Their names are one owner's. Those of the operator everybody finds, and nobody changes.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from inferlet._host import Host
from inferlet.aio._waits import result
from inferlet.model import Model

if TYPE_CHECKING:
    from typing_extensions import Self


class Adapter:
    """`create` or `lookup` gives one; a generation or a pass is told to use it.

    As a context manager it gives back the lock, if it has it, when the block ends.
    """

    def __init__(self, model: Model, handle: int, name: str) -> None:
        self.model = model
        self.name = name
        self._host: Host = model._host
        self._handle = handle
        self._locked = False

    @classmethod
    async def create(cls, model: Model, name: str) -> Self:
        """A new one without weights; `load` or `zo.initialize` gives it some. `NameTaken` where the name is in use."""
        found = model._host
        return cls(model, int(await result(found, found.adapters.create(model._handle, name))), name)

    @classmethod
    def lookup(cls, model: Model, name: str) -> Self | None:
        """The adapter of that name, or None."""
        handle = model._host.adapters.lookup(model._handle, name)
        return None if handle is None else cls(model, handle, name)

    async def clone(self, name: str) -> Self:
        """A new adapter with a copy of the weights. `NameTaken` where *name* is in use."""
        handle = int(await result(self._host, self._host.adapters.clone(self._handle, name)))
        return type(self)(self.model, handle, name)

    async def remove(self) -> None:
        """Free it and its name; any later use of it is `NotFound`."""
        await result(self._host, self._host.adapters.remove(self._handle))

    async def load(self, path: str) -> None:
        """Weights from *path* below the owner's folder of adapters: in PEFT's format, or as `save` wrote them.

        Raises `NotFound` where there are none, `BadRequest` for a path that leads outside and for what does not fit.
        """
        await result(self._host, self._host.adapters.load(self._handle, path))

    async def save(self, path: str) -> None:
        """Weights, and the state of `inferlet.zo`, to *path* below the owner's folder of adapters.

        Raises `BadRequest` for a path that leads outside.
        """
        await result(self._host, self._host.adapters.save(self._handle, path))

    async def acquire_lock(self) -> bool:
        """Try to be the only program that may change it; the answer is there at once."""
        self._locked = self._host.adapters.lock(self._handle) or self._locked
        return self._locked

    def release_lock(self) -> None:
        """Let others change it."""
        self._host.adapters.unlock(self._handle)
        self._locked = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._locked:
            self.release_lock()

    def __repr__(self) -> str:
        return f"<Adapter {self.name!r}>"
