"""Planning works where nothing is installed, and nobody pays for torch before a model is loaded."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "planning"
REQUIREMENTS = ["pytest>=8.3,<10", "hypothesis>=6.115,<7"]
HEAVY = ("torch", "numpy", "transformers", "tokenizers", "safetensors", "llguidance")
PLANNING = "bakehouse.engine.plan"
CONFIG = """[pytest]
addopts = --import-mode=importlib --strict-markers
filterwarnings = error
markers = slow: minutes rather than seconds
pythonpath = {root} {root}/src
cache_dir = {cache}/pytest
"""


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=240, env={**inherited, **environment}
    )


def bare_python() -> str:
    """The interpreter of an environment with pytest and hypothesis only; made once, under ``.cache/planning``."""
    venv, python = CACHE / "venv", CACHE / "venv" / "bin" / "python"
    stamp = venv / ("ready " + " ".join(REQUIREMENTS).replace("/", "_"))
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists():
            uv = str(Path(sys.executable).with_name("uv"))
            for command in (
                [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(venv)],
                [uv, "pip", "install", "--quiet", "--python", str(python), *REQUIREMENTS],
            ):
                done = run(command)
                assert done.returncode == 0, done.stderr
            stamp.touch()
    return str(python)


def test_the_planning_tests_pass_without_torch(tmp_path: Path) -> None:
    python = bare_python()
    done = run([python, "-c", f"import importlib.util as u; print([m for m in {HEAVY!r} if u.find_spec(m)])"])
    assert done.stdout.strip() == "[]", "the environment is not bare"
    config = tmp_path / "pytest.ini"
    config.write_text(CONFIG.format(root=ROOT, cache=tmp_path), encoding="utf-8")
    tests = ROOT / "tests" / "engine" / "plan"
    command = [python, "-m", "pytest", "-q", "-c", str(config), "--rootdir", str(ROOT), "--confcutdir", str(tests)]
    command += ["-m", "not slow", "--ignore", str(tests / "test_speed.py"), str(tests)]
    done = run(command, HYPOTHESIS_STORAGE_DIRECTORY=str(tmp_path / "hypothesis"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and "skipped" not in done.stdout


@pytest.mark.parametrize(
    "module",
    [
        "bakehouse.api",
        "bakehouse.cli",
        "bakehouse.engine.handle",
        "bakehouse.engine.params",
        "bakehouse.engine.plan.planner",
        "bakehouse.engine.spec",
        "bakehouse.engine.wire",
        "bakehouse.wiring",
    ],
)
def test_importing_brings_in_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = run([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_planning_needs_the_standard_library_only() -> None:
    code = (
        f"import sys; before = set(sys.modules); import {PLANNING}.planner; "
        "new = {m.partition('.')[0] for m in set(sys.modules) - before}; "
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    done = run([sys.executable, "-c", code])
    assert done.stdout.strip() == "['bakehouse']", done.stderr
