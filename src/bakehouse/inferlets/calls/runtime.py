"""What an instance can know of itself, and the instances that it starts."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import asdict

import orjson

from bakehouse import __version__
from bakehouse.inferlets.calls.base import Interface, check_size, over
from bakehouse.inferlets.calls.forms import texts
from bakehouse.inferlets.calls.results import Once
from bakehouse.inferlets.errors import Refused


class Runtime(Interface):
    def version(self) -> str:
        return __version__

    def instance_id(self) -> str:
        return self._guest.launch.id

    def username(self) -> str:
        return self._guest.launch.username

    def limits(self) -> str:
        return orjson.dumps(asdict(self._guest.limits)).decode()

    def spawn(self, program: str, arguments: str) -> int:
        guest = self._guest
        limits, launch = guest.limits, guest.launch
        name = check_size("message", program, limits.message, "program")
        given = tuple(texts("arguments", check_size("message", arguments, limits.message, "arguments")))
        if launch.depth >= limits.depth:
            raise Refused(f"depth: instances spawn instances at most {limits.depth} levels deep", field="depth")
        if len(guest.children) >= limits.children:
            raise over("children", limits.children, "spawned instances that run; wait for one to end")

        def start() -> Once[str]:
            child: Future[str] = guest.services.spawn(launch, name, given)
            guest.children.add(child)
            child.add_done_callback(guest.children.discard)
            return Once(child, str)

        return guest.waits.add(start)
