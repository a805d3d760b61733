"""Outside the sandbox: which host a program talks to."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from inferlet import _host
from inferlet._border import checked
from inferlet._host import Host, Native, join, leave
from inferlet.errors import HostError, error_of

if TYPE_CHECKING:
    from typing_extensions import Self

_INTERFACES = frozenset(Host.__annotations__)


def connect(target: Native | str, *, token: str | None = None) -> Connection:
    """Run this program's calls at *target* from now on, until the connection is closed.

    *target* is a server's address, such as ``ws://127.0.0.1:8080``, with a key as *token* where it asks for one; or a
    host in this process, such as ``bakehouse.wiring.notebook.open_engine()``. Addresses need the extra
    ``bakehouse-inferlet[client]``. Raises `ConnectionLost` or `Unauthorized` of `inferlet.client` where there is no way
    to the server, and RuntimeError in the sandbox, where a program has its host from the start.
    """
    if "inferlet._sandbox" in sys.modules:
        raise RuntimeError("a program in the sandbox has its host already: leave inferlet.connect out of it")
    if isinstance(target, str):
        from inferlet.remote import open_remote

        return Connection(open_remote(target, token=token))
    if token is not None:
        raise TypeError("token: a host in this process asks for none")
    missing = [name for name in sorted(_INTERFACES) if not hasattr(target, name)]
    if missing:
        raise TypeError(f"{target!r} is no host: it lacks {', '.join(missing)}")
    return Connection(target)


class Connection:
    """A program's link to its host; closing it frees what the program holds there. Also a context manager."""

    def __init__(self, host: Native) -> None:
        self._host = host
        self._translated = cast(Host, Translated(host))
        join(self._translated)

    def close(self) -> None:
        """Free everything; the newest host of those that are left, if any, is the program's. May be repeated."""
        leave(self._translated)
        close = getattr(self._host, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Translated:
    """A host whose errors are those of `inferlet.errors`, whatever *inner* raises with a ``code``.

    As in the sandbox, what a program passes is looked at first: *protocol* is the interface's, where it is one.
    """

    def __init__(self, inner: object, protocol: object = None) -> None:
        self._inner = inner
        self._protocol = protocol

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name in _INTERFACES:
            value: Any = Translated(found, getattr(_host, name.capitalize()))
        else:
            value = _translating(found)
            called = getattr(self._protocol, name, None)
            if called is not None:
                value = checked(value, called)
        setattr(self, name, value)
        return value


def _translating(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except HostError:
            raise
        except Exception as error:
            code = getattr(error, "code", None)
            if not isinstance(code, str):
                raise
            raise error_of(code, str(getattr(error, "detail", error))) from error

    return call
