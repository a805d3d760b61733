"""What the run needs, each made once under ``.cache/bench``: the model, llama.cpp's environment, its files."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

from benchmarks.engine.workers import CACHE, ROOT

MODEL = CACHE / "qwen3-0.6b-random"
LLAMA_VENV = CACHE / "venv-llama"
LLAMA_FILES = CACHE / "gguf"


def model() -> Path:
    """The folder of the random model; made in half a minute."""
    if not (MODEL / "done").exists():
        MODEL.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "benchmarks.engine.model", str(MODEL)], cwd=ROOT, check=True)
    return MODEL


def llama_python() -> Path:
    """The interpreter with llama.cpp, compiled here for this processor; a quarter of an hour on two cores."""
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["bench-engine"]
    stamp, wanted = LLAMA_VENV / "built.txt", "\n".join(extra)
    python = LLAMA_VENV / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != wanted:
        uv = str(Path(sys.executable).with_name("uv"))
        if not python.exists():
            subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(LLAMA_VENV)], check=True)
        subprocess.run([uv, "pip", "install", "--python", str(python), *extra], check=True)
        stamp.write_text(wanted)
    return python


def llama_files(python: Path) -> Path:
    """The folder of bf16.gguf, q8_0.gguf and q4_0.gguf, written from the model's own weights."""
    if not (LLAMA_FILES / "done").exists():
        LLAMA_FILES.mkdir(parents=True, exist_ok=True)
        command = [str(python), "-m", "benchmarks.engine.convert", str(model()), str(LLAMA_FILES)]
        subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return LLAMA_FILES
