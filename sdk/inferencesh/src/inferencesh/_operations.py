"""Methods that are written once, as flows, and stand on the synchronous and the asynchronous client alike."""

from __future__ import annotations

import functools
import types
from collections.abc import Coroutine
from typing import Any, Callable, Generic, TypeVar, Union, overload

from typing_extensions import Concatenate, ParamSpec

from inferencesh._api import Api
from inferencesh._drivers import AsyncDriver, SyncDriver
from inferencesh._flow import Flow

P = ParamSpec("P")
T = TypeVar("T")
D = TypeVar("D", bound=Union[SyncDriver, AsyncDriver])


class Bound(Generic[D]):
    """Something with operations: it has an API to build requests for and a driver to carry them out."""

    def __init__(self, api: Api, driver: D) -> None:
        self._api = api
        self._driver: D = driver


class operation(Generic[P, T]):
    """A method written as a flow. On a synchronous object it returns the result, on an asynchronous one a coroutine."""

    def __init__(self, flow: Callable[Concatenate[Any, P], Flow[T]]) -> None:
        @functools.wraps(flow)
        def method(owner: Any, *args: P.args, **kwargs: P.kwargs) -> Any:
            return owner._driver.run(flow(owner, *args, **kwargs))

        self._method = method
        self.__doc__ = flow.__doc__

    @overload
    def __get__(self, owner: None, kind: type) -> operation[P, T]: ...
    @overload
    def __get__(self, owner: Bound[SyncDriver], kind: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, owner: Bound[AsyncDriver], kind: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, owner: Any | None, kind: type) -> Any:
        return self if owner is None else types.MethodType(self._method, owner)
