"""The one table of what is bound when the blocks of document 5 run. Nothing else about them is changed.

``LITERALS`` are string literals that stand for something of the reader's own. ``BLOCKS`` lists every Python block with
the names that it leaves open; what each stands for is in ``inferlet_program.py``. ``PATHS`` are words of the commands.
"""

from __future__ import annotations

PROGRAM = "an installed program"
SCHEMA = "a whole schema in place of the one that is cut short"

LITERALS = {
    "pkg@1.0.0": PROGRAM,
    '{"type":"object",...}': SCHEMA,
}

BLOCKS: dict[str, frozenset[str]] = {
    name: frozenset(names.split())
    for name, names in {
        "5 Quick Start": "",
        "5 API Reference": "",
        "5 Context": "Context model",
        "5 Generation": "ctx Sampler Event session",
        "5 Sampler": "Sampler",
        "5 Event Types": "ctx Sampler",
        "5 Tool Use": "ctx tool_schema_json_1 tool_schema_json_2",
        "5 Structured Generation": "Grammar Matcher model",
        "5 Session & Runtime": "session runtime data args",
        "5 Messaging": "messaging",
    }.items()
}

PATHS = {"sdk/examples/python/": "examples/inferlets/"}
"""Where the document's examples are here."""
