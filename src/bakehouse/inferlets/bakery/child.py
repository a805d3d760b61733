"""The process in which componentize-py runs: ``python -I child.py REQUEST``. Imports nothing of ours.

It is a process of its own because the library prints, keeps memory, and ends the process where it fails badly.
"""

import json
import os
import sys

from componentize_py import componentize  # type: ignore[import-untyped]

# Its own frames help nobody who reads what the guest's Python says.
os.environ["RUST_BACKTRACE"] = "0"
request = json.loads(sys.argv[1])
componentize(
    [request["wit"]],
    ["inferlet"],
    [],
    False,
    "wit_world",
    request["path"],
    [],
    "bakery_program",
    request["out"],
    False,
    [],
    [],
    False,
    None,
)
