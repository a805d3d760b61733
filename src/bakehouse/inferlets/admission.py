"""Who may run at one time: so many instances of a host, of an owner and of a parent, and so much memory."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from bakehouse.inferlets.base import OwnerLimits
from bakehouse.inferlets.errors import NotRunning, Refused
from bakehouse.inferlets.instances import Instance


class Admission:
    """The instances that run, by id. Thread-safe; only tables here: no instance is started, ended or waited for."""

    def __init__(self, limits: OwnerLimits, most: int) -> None:
        self._limits, self._most = limits, most
        self._guard = threading.Lock()
        self._live: dict[str, Instance] = {}
        self._used: dict[str, _Used] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._live)

    def enter(self, instance: Instance) -> None:
        """Raises `Refused` over a limit of the host, the owner or the parent, `NotRunning` where the parent ends."""
        launch = instance.launch
        with self._guard:
            if self._closed:
                raise Refused("the inferlet host is stopping")
            if launch.id in self._live:
                raise Refused(f"an instance {launch.id} runs already")
            if len(self._live) >= self._most:
                raise Refused(f"this host runs at most {self._most} instances at one time")
            used = self._used.get(launch.owner) or _Used()
            self._check_owner(used, launch.limits.memory)
            if launch.parent is not None:
                self._adopt(instance, launch.parent)
            self._live[launch.id] = instance
            self._used[launch.owner] = used
            used.instances += 1
            used.memory += launch.limits.memory

    def leave(self, instance: Instance) -> None:
        """Give back what it was admitted to."""
        launch = instance.launch
        with self._guard:
            del self._live[launch.id]
            used = self._used[launch.owner]
            used.instances -= 1
            used.memory -= launch.limits.memory
            if not used.instances:
                del self._used[launch.owner]
            parent = self._live.get(launch.parent) if launch.parent is not None else None
            if parent is not None and parent.children is not None:
                parent.children.pop(launch.id, None)

    def orphan(self, instance: Instance) -> list[Instance]:
        """Let it have no more children; those that it has now."""
        with self._guard:
            children, instance.children = instance.children, None
            return list((children or {}).values())

    def get(self, id: str) -> Instance | None:
        return self._live.get(id)

    def all(self) -> list[Instance]:
        """The oldest first."""
        with self._guard:
            return list(self._live.values())

    def close(self) -> None:
        """Refuse all that comes. May be repeated."""
        with self._guard:
            self._closed = True

    # With the guard held

    def _check_owner(self, used: _Used, memory: int) -> None:
        limits = self._limits
        if used.instances >= limits.instances:
            raise Refused(f"instances: an owner has at most {limits.instances} at one time", field="instances")
        if used.memory + memory > limits.memory:
            raise Refused(
                f"memory: an owner's instances may use {limits.memory} bytes together, by their own limits; "
                f"{used.memory} are given away and this one asks for {memory}",
                field="memory",
            )

    def _adopt(self, instance: Instance, id: str) -> None:
        launch, parent = instance.launch, self._live.get(id)
        if parent is None or parent.children is None:
            raise NotRunning(f"the instance {id} that is to be its parent has ended")
        limits = parent.launch.limits
        if launch.depth > limits.depth:
            raise Refused(f"depth: programs spawn each other at most {limits.depth} deep", field="depth")
        if len(parent.children) >= limits.children:
            raise Refused(f"children: a program has at most {limits.children} at one time", field="children")
        parent.children[launch.id] = instance


@dataclass(slots=True)
class _Used:
    """What one owner's instances were admitted to."""

    instances: int = 0
    memory: int = 0
