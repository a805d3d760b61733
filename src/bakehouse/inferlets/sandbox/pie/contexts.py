"""Contexts, by hand: buffer, cursor and pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bakehouse.engine.errors import Locked, NotFound
from bakehouse.inferlets.sandbox.linking import Interface
from bakehouse.inferlets.sandbox.pie.base import PARSER, Known, futures, letting_go, packed, said
from bakehouse.inferlets.sandbox.pie.locks import Key, Locks
from bakehouse.inferlets.sandbox.pie.models import Model
from bakehouse.inferlets.sandbox.running import Running


@dataclass(slots=True)
class Context:
    """``reserved``: pages that were reserved through this handle and not released or committed since."""

    handle: int
    model: Model
    name: str
    locks: Locks
    reserved: int = 0

    def mine(self, running: Running) -> int:
        """The handle, to change what it stands for. Raises `Locked` while another program has the lock."""
        if self.name and not self.locks.free(_key(running, self), running):
            raise Locked(f"context {self.name!r} is locked by another program; try again when it is free")
        return self.handle

    def state(self, running: Running) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(running.calls.contexts.state(self.handle))
        return found


def _create(locks: Locks) -> Callable[[Running, Model, str, list[int] | None], Context]:
    def create(running: Running, model: Model, name: str, fill: list[int] | None) -> Context:
        context = Context(running.calls.contexts.create(model.handle, name or None), model, name, locks)
        if fill:
            running.calls.contexts.append(context.handle, packed(fill))
        return context

    return create


def _lookup(locks: Locks) -> Callable[[Running, Model, str], Context | None]:
    def lookup(running: Running, model: Model, name: str) -> Context | None:
        found = running.calls.contexts.lookup(model.handle, name)
        return None if found is None else Context(found, model, name, locks)

    return lookup


def _fork(running: Running, context: Context, name: str) -> Context:
    return Context(running.calls.contexts.fork(context.handle, name or None), context.model, name, context.locks)


def _destroy(running: Running, context: Context) -> None:
    running.calls.contexts.release(context.mine(running))


def _drop(running: Running, context: Context) -> None:
    # A named one stays for `lookup`.
    if not context.name:
        running.calls.contexts.release(context.handle)


def _key(running: Running, context: Context) -> Key:
    return running.guest.launch.owner, context.model.info(running)["name"], context.name


def _acquire(locks: Locks) -> Callable[[Running, Context], Known]:
    def acquire(running: Running, context: Context) -> Known:
        context.state(running)
        return Known(not context.name or locks.acquire(_key(running, context), running))

    return acquire


def _release(locks: Locks) -> Callable[[Running, Context], None]:
    def release(running: Running, context: Context) -> None:
        context.state(running)
        if context.name and not locks.release(_key(running, context), running):
            raise NotFound(f"the lock of context {context.name!r} is not held by this program")

    return release


def _uncommitted(running: Running, context: Context) -> int:
    state = context.state(running)
    filled: int = -(-state["cursor"] // state["page_size"])
    return max(context.reserved, filled)


def _commit(running: Running, context: Context, indices: list[int]) -> None:
    running.calls.contexts.commit_pages(context.mine(running), packed(indices))
    context.reserved = max(0, context.reserved - len(indices))


def _reserve(running: Running, context: Context, count: int) -> None:
    running.calls.contexts.reserve_pages(context.mine(running), count)
    context.reserved = max(context.reserved, count)  # so many in all, not so many more


def _release_pages(running: Running, context: Context, count: int) -> None:
    running.calls.contexts.release_pages(context.mine(running), count)
    context.reserved = max(0, context.reserved - count)


def _set_cursor(running: Running, context: Context, cursor: int) -> None:
    running.calls.contexts.set_cursor(context.mine(running), cursor)


def _set_buffer(running: Running, context: Context, tokens: list[int]) -> None:
    running.calls.contexts.set_buffer(context.mine(running), packed(tokens))


def _append(running: Running, context: Context, tokens: list[int]) -> None:
    running.calls.contexts.append(context.mine(running), packed(tokens))


def _told(field: str) -> Callable[[Running, Context], Any]:
    return lambda running, context: context.state(running)[field]


_of = "[method]context."
_self, _made = "borrow<context>", "result<own<context>, error>"
_TABLE: dict[str, Callable[..., Any]] = {
    f"{_of}destroy({_self})": _destroy,
    f"{_of}fork({_self}, string) -> {_made}": _fork,
    f"{_of}tokens-per-page({_self}) -> u32": _told("page_size"),
    f"{_of}model({_self}) -> own<model>": lambda _, context: context.model,
    f"{_of}committed-page-count({_self}) -> u32": _told("committed_pages"),
    f"{_of}uncommitted-page-count({_self}) -> u32": _uncommitted,
    f"{_of}commit-pages({_self}, list<u32>) -> result<_, error>": _commit,
    f"{_of}reserve-pages({_self}, u32) -> result<_, error>": _reserve,
    f"{_of}release-pages({_self}, u32)": _release_pages,
    f"{_of}cursor({_self}) -> u32": _told("cursor"),
    f"{_of}set-cursor({_self}, u32)": _set_cursor,
    f"{_of}buffered-tokens({_self}) -> list<u32>": _told("buffered"),
    f"{_of}set-buffered-tokens({_self}, list<u32>)": _set_buffer,
    f"{_of}append-buffered-tokens({_self}, list<u32>)": _append,
    f"{_of}last-position({_self}) -> option<u32>": _told("last_position"),
}


def interfaces(locks: Locks) -> Iterator[Interface]:
    locking: dict[str, Callable[..., Any]] = {
        f"[static]context.create(borrow<model>, string, option<list<u32>>) -> {_made}": _create(locks),
        "[static]context.lookup(borrow<model>, string) -> option<own<context>>": _lookup(locks),
        f"{_of}acquire-lock({_self}) -> own<future-bool>": _acquire(locks),
        f"{_of}release-lock({_self}) -> result<_, error>": _release(locks),
    }
    yield from futures()
    yield Interface("pie:core/context@0.2.0", said, PARSER, _TABLE | locking, {"context": letting_go(_drop)})
