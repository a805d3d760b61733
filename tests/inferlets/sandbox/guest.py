"""A program that does what its first argument says: Python, run beside the functions of the world and little else."""

import importlib
import json
import os
import random
import re
import socket
import sys
import time
import traceback

from componentize_py_types import Err
from wit_world import exports

FIRST = ["waits", "models", "contexts", "passes", "grammars", "decoders", "adapters"]
INTERFACES = [*FIRST, "client", "runtime", "messaging", "mcp"]
GIVEN = {name: importlib.import_module(f"wit_world.imports.{name}") for name in INTERFACES}
GIVEN |= {each.__name__: each for each in (json, os, random, re, socket, sys, time)}


class Run(exports.Run):
    def run(self, arguments):
        scope = {**GIVEN, "Err": Err, "arguments": arguments[1:]}
        try:
            exec(arguments[0], scope)
        except Exception as error:
            traceback.print_exc()
            raise Err(f"{type(error).__name__}: {error}") from error
        return str(scope.get("result", ""))
