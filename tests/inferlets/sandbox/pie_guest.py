"""A program of the world pie that does what its first argument says."""

import json
import sys
import time
import traceback

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import (
    adapter,
    chat,
    client,
    context,
    inference,
    messaging,
    model,
    poll,
    reasoning,
    runtime,
    session,
    tool_use,
    types,
    zo,
)

MODULES = {
    "adapter": adapter,
    "chat": chat,
    "client": client,
    "context": context,
    "inference": inference,
    "messaging": messaging,
    "model": model,
    "poll": poll,
    "reasoning": reasoning,
    "runtime": runtime,
    "session": session,
    "tool_use": tool_use,
    "types": types,
    "zo": zo,
}


def wait(future):
    """The value of a future, waited for through its pollable."""
    while True:
        found = future.get()
        if found is not None:
            return found
        with future.pollable() as ready:
            ready.block()


class Run(exports.Run):
    def run(self, arguments):
        given = {"json": json, "sys": sys, "time": time, "Err": Err, "wait": wait, "arguments": arguments[1:]}
        scope = {**MODULES, **given}
        try:
            exec(arguments[0], scope)
        except Exception as error:
            traceback.print_exc()
            raise Err(f"{type(error).__name__}: {error}") from error
        return str(scope.get("result", ""))
