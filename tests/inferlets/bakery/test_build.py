"""Building: what comes out, what is kept, and what dependencies become."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from bakehouse.inferlets import bakery
from bakehouse.inferlets.bakery import BadProject, Built
from bakehouse.inferlets.payload import join, split, split_file
from tests.inferlets.bakery.conftest import Launched
from tests.inferlets.bakery.test_refusals import project
from tests.inferlets.conftest import CACHE


def build(source: Path, out: Path) -> Built:
    return bakery.build(source, out, cache=CACHE / "bakery", compiled=CACHE / "compiled")


def test_the_same_again_comes_from_the_cache(tmp_path: Path) -> None:
    source = project(tmp_path / "in", {"main.py": f"# {tmp_path}\nprint('hi')\n"})
    first = build(source, tmp_path / "a.wasm")
    again = build(source / "main.py", tmp_path / "b.wasm")
    assert (first.cached, again.cached) == (False, True)
    assert first.digest == again.digest
    assert (tmp_path / "a.wasm").read_bytes() == (tmp_path / "b.wasm").read_bytes()
    assert first.size == (tmp_path / "a.wasm").stat().st_size
    assert first.files == ("main.py",)
    assert first.manifest.ref == "tried@0.1.0"


def test_what_somebody_else_built_is_taken_and_left_alone(tmp_path: Path) -> None:
    """A server's builds may read what its owner built by hand."""
    source = project(tmp_path / "in", {"main.py": f"# {tmp_path}\n"})
    first = build(source, tmp_path / "a.wasm")
    again = bakery.build(source, tmp_path / "b.wasm", cache=tmp_path / "own", lent=CACHE / "bakery")
    assert again.cached
    assert again.digest == first.digest
    assert (tmp_path / "a.wasm").read_bytes() == (tmp_path / "b.wasm").read_bytes()
    assert not (tmp_path / "own").exists()


def test_any_change_is_another_build(tmp_path: Path) -> None:
    files = {"main.py": f"# {tmp_path}\nimport lib\n", "lib/__init__.py": "", "lib/data.txt": "1"}
    source = project(tmp_path / "in", files)
    digests = {build(source, tmp_path / "out.wasm").digest}
    for name, text in files.items():
        (source / name).write_text(text + "\n# more\n")
        digests.add(build(source, tmp_path / "out.wasm").digest)
    assert len(digests) == 4


def test_what_is_not_part_of_it_changes_nothing(tmp_path: Path) -> None:
    source = project(tmp_path / "in", {"main.py": f"# {tmp_path}\n"})
    first = build(source, tmp_path / "out.wasm")
    project(source, {"other.py": "x = 1\n", "notes.txt": "?", "tests/test_it.py": "import pytest\n"})
    assert build(source, tmp_path / "out.wasm").digest == first.digest


def test_programs_share_a_component(tmp_path: Path) -> None:
    parts = []
    for name in ("one", "two"):
        built = build(project(tmp_path / name, {"main.py": f"print('{name}')\n"}), tmp_path / f"{name}.wasm")
        assert built.shared
        size, payload = split_file(built.path)
        assert payload
        parts.append((built.path.read_bytes()[:size], payload))
    assert parts[0][0] == parts[1][0]
    assert parts[0][1] != parts[1][1]


def test_a_shared_component_alone_is_no_program(launched: Launched, tmp_path: Path) -> None:
    built = build(project(tmp_path, {"main.py": ""}), tmp_path / "out.wasm")
    size, _ = split_file(built.path)
    (tmp_path / "bare.wasm").write_bytes(built.path.read_bytes()[:size])
    assert "no program" in launched(tmp_path / "bare.wasm").error


def test_code_that_is_none_fails_alone(launched: Launched, tmp_path: Path) -> None:
    built = build(project(tmp_path, {"main.py": ""}), tmp_path / "out.wasm")
    size, _ = split_file(built.path)
    (tmp_path / "bad.wasm").write_bytes(join(built.path.read_bytes()[:size], b"\xff\x00nonsense"))
    assert launched(tmp_path / "bad.wasm").error
    assert launched(built.path).result == ""


@pytest.mark.parametrize("payload", [b"", b"x", bytes(200), bytes(range(256)) * 300])
def test_a_payload_behind_a_component(payload: bytes) -> None:
    component = b"\0asm\x0d\0\1\0" + b"\0\5\4name"
    whole = join(component, payload)
    assert split(whole) == (len(component), payload)
    assert split(component) == (len(component), None)


@pytest.mark.parametrize(
    "wasm", [b"", b"\0asm", b"\0asm\x0d\0\1\0\0\xff", b"\0asm\x0d\0\1\0\0\5", bytes(64), b"\0" * 8 + b"\0"]
)
def test_what_is_no_wasm_has_no_payload(wasm: bytes) -> None:
    assert split(wasm) == (len(wasm), None)


# Dependencies


def wheel(folder: Path, files: dict[str, str], name: str = "loaves") -> Path:
    """A wheel of *files*, as pip would install it."""
    info = f"{name}-1.2.3.dist-info"
    every = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2.3\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*every, f"{info}/RECORD"])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-1.2.3-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in {**every, f"{info}/RECORD": record}.items():
            archive.writestr(inside, text)
    return path


LOAVES = {
    "loaves/__init__.py": "import time\nfrom importlib.metadata import version\n"
    "__version__ = version('loaves')\nbuilt_at = time.time()\n",
    "loaves/late.py": "from loaves import __version__ as seen\n",
    "loaves/crumbs.txt": "crumbs",
}


def test_dependencies_are_in_the_snapshot(launched: Launched, tmp_path: Path) -> None:
    wheel(tmp_path / "in" / "wheels", LOAVES)
    main = """
import time
import loaves
from importlib import import_module, resources

def main():
    late = import_module("loaves" + ".late")
    return [late.seen, resources.files(loaves).joinpath("crumbs.txt").read_text(), time.time() - loaves.built_at]
"""
    files = {"main.py": main, "requirements.txt": "# ours\n./wheels/loaves-1.2.3-py3-none-any.whl\n"}
    built = build(project(tmp_path / "in", files), tmp_path / "out.wasm")
    assert not built.shared
    version, crumbs, age = json.loads(launched(built.path).result)
    assert (version, crumbs) == ("1.2.3", "crumbs")
    assert age > 0.0


@pytest.mark.slow
def test_a_dependency_that_cannot_be_imported_there(tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", {"needy/__init__.py": "import socket\nsocket.create_server(('', 0))\n"}, "needy")
    files = {"main.py": "import needy\n", "requirements.txt": "./wheels/needy-1.2.3-py3-none-any.whl\n"}
    with pytest.raises(BadProject, match="needy: it cannot be imported in the sandbox: "):
        build(project(tmp_path, files), tmp_path / "out.wasm")


def test_native_code_in_a_dependency_is_refused_by_its_name(tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", {"stone/__init__.py": "", "stone/fast.cpython-314-x86_64-linux-gnu.so": ""}, "stone")
    files = {"main.py": "import stone\n", "requirements.txt": "./wheels/stone-1.2.3-py3-none-any.whl\n"}
    with pytest.raises(BadProject, match=r"native code.*: stone$"):
        build(project(tmp_path, files), tmp_path / "out.wasm")


def test_dependencies_of_pyproject_but_the_sdk(tmp_path: Path) -> None:
    toml = (
        '[project]\nname = "x"\nversion = "1"\ndependencies = ["bakehouse-inferlet>=0.1", "no-such-loaf-anywhere==9"]\n'
    )
    with pytest.raises(BadProject, match="no-such-loaf-anywhere") as caught:
        build(project(tmp_path, {"main.py": "", "pyproject.toml": toml}), tmp_path / "out.wasm")
    assert "bakehouse" not in str(caught.value)


# New projects


def test_a_new_project_builds_and_runs(launched: Launched, tmp_path: Path) -> None:
    files = bakery.create("fresh", tmp_path / "fresh")
    assert [path.name for path in files] == ["main.py", "Pie.toml", "README.md", ".gitignore"]
    ran = launched(tmp_path / "fresh", "--prompt", "Hello?")
    assert ran.messages == ["You asked: Hello?"]
    assert ran.result


def test_a_new_project_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BadProject, match="not empty"):
        bakery.create("fresh", tmp_path)
    with pytest.raises(BadProject, match="no name of a program"):
        bakery.create("../fresh", tmp_path / "new")
