"""What a type checker makes of a program, and that the package says that it is typed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import inferlet

SOURCES = Path(inferlet.__file__).parents[1]
PROGRAM = Path(__file__).with_name("typed_program.py")


def test_a_program_has_types(tmp_path: Path) -> None:
    assert (SOURCES / "inferlet" / "py.typed").exists()
    cache = Path(__file__).parents[3] / ".cache" / "inferlets" / "mypy"
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(cache), str(PROGRAM)]
    environment = {**os.environ, "MYPYPATH": str(SOURCES)}
    checked = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert checked.returncode == 0, checked.stdout
