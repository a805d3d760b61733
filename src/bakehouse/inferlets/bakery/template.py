"""A new project: three files that build and run as they are."""

from __future__ import annotations

from pathlib import Path

from bakehouse.inferlets.bakery.problems import BadProject, Problem
from bakehouse.inferlets.manifest import FILENAME, check_name

_MAIN = '''\
"""{name}: what this program does, in one line."""

from inferlet import Context, Model, Sampler, runtime, session


def main(input: dict) -> str:
    """Runs once per launch, beside the model. What it returns is the program's result."""
    prompt = input.get("prompt", "Why does bread rise?")
    session.send(f"You asked: {{prompt}}")  # the client sees it at once
    with Context(Model.load(runtime.models()[0])) as ctx:
        ctx.system("You are a helpful assistant.")
        ctx.user(prompt)
        return ctx.generate_text(Sampler.top_p(), max_tokens=256)
'''

_MANIFEST = """\
[package]
name = "{name}"
version = "0.1.0"
description = ""

[runtime]
core = "^0.2.0"

[parameters]
prompt = {{ type = "string", optional = true, description = "What to ask." }}
"""

_README = """\
# {name}

```bash
bakery build . -o {name}.wasm
pie run --dummy --path {name}.wasm --manifest Pie.toml -- --prompt "Why does bread rise?"
```

`--dummy` runs it on a model without weights, which writes random text. `pie run --native . --dummy` runs the program as
plain Python, where a debugger can stop it.
"""

_IGNORED = "*.wasm\n__pycache__/\n"


def create(name: str, folder: Path) -> list[Path]:
    """Write the project *name* into *folder*, which must be empty or not be there; its files. Raises `BadProject`."""
    try:
        check_name(name)
    except ValueError as error:
        raise BadProject([Problem(name, None, str(error))], field="package.name") from None
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadProject([Problem(str(folder), None, "is there already and not empty; choose another place with -o")])
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"main.py": _MAIN, FILENAME: _MANIFEST, "README.md": _README}
    for file, text in texts.items():
        (folder / file).write_text(text.format(name=name), encoding="utf-8")
    (folder / ".gitignore").write_text(_IGNORED, encoding="utf-8")
    return [folder / file for file in (*texts, ".gitignore")]
