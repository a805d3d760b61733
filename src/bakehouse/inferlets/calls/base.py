"""What every interface of a guest stands on: counted calls, and tables of handles."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from inspect import isfunction
from reprlib import repr as brief
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from bakehouse.engine.errors import BadRequest, EngineError, NotFound
from bakehouse.engine.handle import Session
from bakehouse.engine.params import ModelInfo
from bakehouse.inferlets.calls.inbox import Room
from bakehouse.inferlets.calls.packing import unpack_ids
from bakehouse.inferlets.errors import InferletError, Refused

if TYPE_CHECKING:
    from bakehouse.inferlets.calls.guest import Guest

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Handles and numbers of waits are 32 bits wide where they cross the border.
TOP = 2**32


class Interface:
    """One interface of the WIT package, for one guest.

    Each public method is a call of the guest. It raises `Ended` once the instance is to end, and else errors of the
    engine's tree or ours: what is in neither is a defect, which is logged, and told to the guest without its instance
    being lost.
    """

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def __init_subclass__(cls) -> None:
        for name, method in list(vars(cls).items()):
            if isfunction(method) and not name.startswith("_"):
                setattr(cls, name, _call(method))


def _call(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(self: Interface, *args: Any, **named: Any) -> Any:
        janitor = self._guest.janitor
        if janitor is None:
            return run(self, *args, **named)
        return janitor.call(method.__qualname__, lambda: run(self, *args, **named))

    def run(self: Interface, *args: Any, **named: Any) -> Any:
        self._guest.enter()
        try:
            return method(self, *args, **named)
        except (EngineError, InferletError):
            raise
        except Exception as error:
            log.exception("%s of instance %s failed", method.__qualname__, self._guest.launch.id)
            raise InferletError(f"the host could not do it: {type(error).__name__}: {error}") from error

    return call


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """One model, and an instance's session with it."""

    info: ModelInfo
    session: Session


class Bound(NamedTuple):
    """Something of one model's session, by the engine's id."""

    model: Model
    id: int


#: Bytes that a matcher or a decoder remembers for each byte of packed ids: some 250 for an id.
PER_PACKED = 64


@dataclass(slots=True, eq=False)
class Follower:
    """A matcher or a decoder, by the engine's id. It remembers what it was fed, so that is bounded until a reset, and
    takes *room*."""

    model: Model
    id: int
    room: Room
    fed: int = 0

    def feed(self, ids: str, limit: int) -> array[int]:
        """Packed *ids*, unpacked. Raises `Refused` where with those before they are more than *limit* bytes, or where
        there is no room for what will be remembered of them."""
        check_packed("message", ids, limit, "ids")
        if self.fed + len(ids) > limit:
            raise Refused(f"message: ids may have at most {limit} bytes in all until a reset", field="message")
        tokens = unpack_ids(ids)
        self.room.take(PER_PACKED * len(ids))
        self.fed += len(ids)
        return tokens

    def forget(self) -> None:
        """It was reset, or is gone."""
        self.room.give(PER_PACKED * self.fed)
        self.fed = 0


class Table(Generic[T]):
    """Handles of one kind. *word* is what errors call one, *field* the limit that bounds how many there are."""

    def __init__(self, word: str, field: str = "", limit: int = TOP - 1) -> None:
        self._word = word
        self._field = field
        self._limit = limit
        self._held: dict[int, T] = {}
        self._last = 0
        self._coming: set[object] = set()

    def __len__(self) -> int:
        return len(self._held)

    def check_room(self) -> None:
        """Raises `Refused` when the limit is reached."""
        if len(self._held) + len(self._coming) >= self._limit:
            raise over(self._field, self._limit, f"{self._word} handles; release some")

    def promise(self) -> Callable[[], None]:
        """A handle that a result will need which is not there yet counts from now on, until what this returns is
        called. Raises `Refused`."""
        self.check_room()
        place = object()
        self._coming.add(place)
        return lambda: self._coming.discard(place)

    def add(self, value: T) -> int:
        """A handle of *value*. `check_room` comes before the work that makes it."""
        self._last = next_number(self._last, self._held)
        self._held[self._last] = value
        return self._last

    def enter(self, value: T) -> int:
        """The handle that *value* has, or a new one."""
        known = self.find(lambda held: held == value)
        return self.add(value) if known is None else known

    def find(self, fits: Callable[[T], bool]) -> int | None:
        """The handle of the first value that *fits*."""
        return next((handle for handle, held in self._held.items() if fits(held)), None)

    def get(self, handle: object) -> T:
        """Raises `NotFound`, `BadRequest` for what is no handle."""
        if type(handle) is not int:
            raise BadRequest.at(self._word, f"must be a handle, which is an integer, not {brief(handle)}")
        try:
            return self._held[handle]
        except KeyError:
            raise NotFound(f"there is no {self._word} {handle}, or it was released", field=self._word) from None

    def pop(self, handle: int) -> T:
        value = self.get(handle)
        self._held.pop(handle, None)
        return value

    def clear(self) -> list[T]:
        held, self._held = self._held, {}
        return list(held.values())


def next_number(last: int, taken: dict[int, Any]) -> int:
    """The number after *last* that is not taken; they start again at 1 when 32 bits are used up."""
    number = last % (TOP - 1) + 1
    while number in taken:
        number = number % (TOP - 1) + 1
    return number


def over(field: str, limit: float, what: str) -> Refused:
    """The error of a limit that is reached: it names the limit and its value."""
    return Refused(f"{field}: an instance has at most {limit} {what}", field=field)


def check_size(field: str, value: object, limit: int, name: str) -> str:
    """*value*, a text of at most *limit* bytes of UTF-8. Raises `BadRequest`, or `Refused` naming the limit *field*."""
    if not isinstance(value, str):
        kind = type(value).__name__
        raise BadRequest.at(name, f"must be text, not {kind}{'; await it' if kind == 'coroutine' else ''}")
    if len(value) > limit or (len(value) * 3 > limit and len(value.encode("utf-8", "surrogatepass")) > limit):
        raise Refused(f"{field}: {name} may have at most {limit} bytes", field=field)
    return value


def check_packed(field: str, value: object, limit: int, name: str) -> str:
    """The same of packed bytes, of which each is one character."""
    if not isinstance(value, str):
        raise BadRequest.at(name, f"must be packed bytes, not {type(value).__name__}")
    if len(value) > limit:
        raise Refused(f"{field}: {name} may have at most {limit} bytes", field=field)
    return value
