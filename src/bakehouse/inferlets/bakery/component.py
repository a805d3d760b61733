"""From a staged program to a component: componentize-py in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from bakehouse.inferlets.bakery.problems import BadProject, BuildFailed, Problem

_CHILD = Path(__file__).with_name("child.py")
_TIMEOUT = 300.0
#: Begins the line by which `inferlet._entry` says what is wrong.
_PROBLEM = re.compile(r"bakery-problem: (\{.*\})\s*$", re.MULTILINE)
_TAIL = 4000


def componentize(staged: Path, out: Path) -> None:
    """Build the program below *staged* into *out*. Raises `BadProject` for what the program does, `BuildFailed`."""
    request = {
        "wit": str(staged / "wit"),
        "path": [str(staged / "sdk"), str(staged / "app")],
        "out": str(out),
    }
    code, said = _run([sys.executable, "-I", str(_CHILD), json.dumps(request)], staged)
    if found := problems_in(said):
        raise BadProject(found)
    if code or not out.is_file():
        raise BuildFailed(f"componentize-py ended with code {code}", said[-_TAIL:])


def problems_in(said: str) -> list[Problem]:
    """What `inferlet._entry` found wrong, from what it printed. What others print in its form is not trusted."""
    found: list[Problem] = []
    for match in _PROBLEM.findall(said):
        # Not ours, then; the whole of what was said is shown where nothing else is found.
        with suppress(ValueError, TypeError, KeyError):
            told = json.loads(match)
            line = told["line"]
            found.append(Problem(str(told["file"]), int(line) if line is not None else None, str(told["text"])))
    return found


def _run(argv: list[str], cwd: Path) -> tuple[int, str]:
    process = subprocess.Popen(
        argv,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise BuildFailed(f"the build took more than {_TIMEOUT:.0f} s; does an import never end?") from None
    finally:
        with suppress(ProcessLookupError):  # it has ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return process.returncode, said
