"""Compiled programs that are kept in memory, the least recently launched going first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import TYPE_CHECKING

from bakehouse.inferlets.errors import NoSuchProgram
from bakehouse.inferlets.programs import Program

if TYPE_CHECKING:
    from bakehouse.inferlets.sandbox import Compiled, Sandbox

#: Each takes some address space and a little memory.
MOST = 64


class LoadedPrograms:
    """Thread-safe."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._guard = threading.Lock()
        self._loaded: OrderedDict[str, Future[Compiled]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._loaded)

    def get(self, program: Program) -> Compiled:
        """It, loaded by one thread while others wait; where that fails the next call tries again.

        Raises `BadProgram`, `NoSuchProgram` where it was removed meanwhile, OSError.
        """
        with self._guard:
            future = self._loaded.get(program.digest)
            first = future is None
            if future is None:
                future = self._loaded[program.digest] = Future()
                while len(self._loaded) > MOST:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(program.digest)
        if first:
            try:
                future.set_result(self._sandbox.load(program.wasm))
            except BaseException as error:
                with self._guard:
                    self._loaded.pop(program.digest, None)
                future.set_exception(error)
        try:
            return future.result()
        except FileNotFoundError:
            raise NoSuchProgram(f"program {program.ref} was removed before it could start", field="program") from None
