"""Environments: real uv, tiny wheels, crashes and company."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bakehouse.build.environments import READY, Recipe, build_environ, find_interpreter
from bakehouse.build.process import BuildFailed, spawn_plain
from bakehouse.build.trees import take_lock
from bakehouse.build.wheels import Wheels, our_wheels
from bakehouse.core.app import Version
from tests.build.support import Bench, Log, app_files, make_wheel, make_zip

RECIPE = Recipe("own", Path("/usr/bin/python3"), "3.11", "numpy\nrich==13\n", "", Wheels(Path(), Path(), "w"), "d1")


async def built(bench: Bench, version: Version, log: Log | None = None) -> Version:
    log = log or Log()
    return await bench.builder().build(version, log, log.step)


def imports(python: Path, module: str) -> str:
    """The distribution that gives *module* in the environment of *python*."""
    return output_of(python, "-I", "-c", f"import {module}; print({module}.DIST)").strip()


def output_of(*argv: str | Path) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_the_key_is_of_what_matters() -> None:
    same = replace(RECIPE, requirements="# tools\nnumpy   # fast\n\nrich==13", digest="d2")
    assert same.key == RECIPE.key
    for change in (
        {"scope": "other"},
        {"python": "3.12"},
        {"requirements": "numpy\nrich==14"},
        {"overrides": "numpy==2"},
        {"requirements": "numpy", "overrides": "rich==13"},
        {"wheels": Wheels(Path(), Path(), "newer")},
    ):
        assert replace(RECIPE, **change).key != RECIPE.key


@pytest.mark.parametrize(
    ("line", "local"),
    [
        ("-r more.txt", True),
        ("-e ./lib", True),
        ("./vendor/a.whl", True),
        ("vendor/a-1.0-py3-none-any.whl", True),
        ("a @ file:///x/a.whl", True),
        ("--find-links vendor", True),
        ("numpy>=2 # see ./notes", False),
        ("--extra-index-url https://x.org/simple", False),
        ("--no-index", False),
        ("a @ https://x.org/a-1.0-py3-none-any.whl", False),
    ],
)
def test_requirements_that_point_into_the_package_take_its_digest(line: str, local: bool) -> None:
    one, two = (replace(RECIPE, requirements=line, digest=digest).key for digest in ("d1", "d2"))
    assert (one != two) is local


async def test_an_environment_holds_requirements_and_our_sdks(bench: Bench) -> None:
    make_wheel(bench.folder, "dep", "dep")
    wheel = (bench.folder / "dep-0.1.0-py3-none-any.whl").read_bytes()
    files = {**app_files(requirements_txt="./dep-0.1.0-py3-none-any.whl"), "dep-0.1.0-py3-none-any.whl": wheel}
    version = await built(bench, bench.version(files))
    environment = await bench.builder().prepare(version)
    assert [imports(environment.python, name) for name in ("dep", "infsh", "inferencesh")] == [
        "dep",
        "bakehouse_infsh",
        "bakehouse_inferencesh",
    ]
    assert (environment.app_dir / "inference.py").is_file()
    site = next(environment.python.parent.parent.glob("lib/python*/site-packages"))
    assert stat.S_IMODE(site.stat().st_mode) == 0o555
    assert stat.S_IMODE((site / "dep" / "__init__.py").stat().st_mode) & 0o222 == 0
    assert list((site / "dep" / "__pycache__").glob("*.pyc")), "byte code is compiled while it can be written"


async def test_the_app_s_own_inferencesh_wins(bench: Bench) -> None:
    make_wheel(bench.folder, "inferencesh", "inferencesh", version="0.36.0")
    name = "inferencesh-0.36.0-py3-none-any.whl"
    files = {**app_files(requirements_txt=f"./{name}"), name: (bench.folder / name).read_bytes()}
    environment = await bench.builder().prepare(await built(bench, bench.version(files)))
    assert imports(environment.python, "inferencesh") == "inferencesh"
    assert imports(environment.python, "infsh") == "bakehouse_infsh"


async def test_overrides_replace_a_dependency_s_dependency(bench: Bench) -> None:
    for dist, requires in (("tool", ("heavy",)), ("light", ())):
        make_wheel(bench.folder, dist, dist, requires=requires)
    wheels = {
        f"{d}-0.1.0-py3-none-any.whl": (bench.folder / f"{d}-0.1.0-py3-none-any.whl").read_bytes()
        for d in ("tool", "light")
    }
    requirements = "--no-index\n" + "\n".join(f"./{name}" for name in wheels)
    with pytest.raises(BuildFailed, match="heavy"):
        await built(bench, bench.version({**app_files(requirements_txt=requirements), **wheels}))
    overrides = 'heavy ; sys_platform == "never"\n'
    files = {**app_files(requirements_txt=requirements, overrides_txt=overrides), **wheels}
    environment = await bench.builder().prepare(await built(bench, bench.version(files)))
    assert imports(environment.python, "tool") == "tool"


async def test_equal_requirements_share_an_environment_within_an_owner(bench: Bench) -> None:
    first = await built(bench, bench.version(app_files()))
    log = Log()
    second = await built(bench, bench.version(app_files(inf_yml="name: other")), log)
    assert first.env_key == second.env_key
    assert "the environment is cached" in log.text
    foreign = await built(bench, bench.version(app_files(), owner_id="own_2"))
    assert foreign.env_key != first.env_key


async def test_two_builds_at_once_build_the_environment_once(bench: Bench) -> None:
    logs = [Log() for _ in range(3)]
    # Two builders over one home are two servers.
    builders = [bench.builder(), bench.builder(), bench.builder()]
    versions = [bench.version(app_files(inf_yml=f"name: a{i}")) for i in range(3)]
    done = await asyncio.gather(
        *(b.build(v, log, log.step) for b, v, log in zip(builders, versions, logs, strict=True))
    )
    assert len({version.env_key for version in done}) == 1
    assert sum("creating an environment" in log.text for log in logs) == 1


async def test_what_a_crash_left_is_removed_or_built_again(bench: Bench) -> None:
    version = await built(bench, bench.version(app_files()))
    env = bench.home / "envs" / str(version.env_key)
    env.chmod(0o755)
    (env / READY).unlink()  # as if the server had died before the end
    half = bench.home / "versions" / ".half-x"
    half.mkdir()
    builder = bench.builder()
    assert builder.prepared(version) is None
    builder.sweep()
    assert not env.exists()
    assert not half.exists()
    environment = await builder.prepare(version)
    assert imports(environment.python, "infsh") == "bakehouse_infsh"


async def test_the_sweep_leaves_alone_what_another_server_builds_now(bench: Bench) -> None:
    env = bench.home / "envs" / "abc"
    env.mkdir(parents=True)
    descriptor = take_lock(env.with_suffix(".lock"))
    assert descriptor is not None
    bench.builder().sweep()
    assert env.is_dir()
    os.close(descriptor)
    bench.builder().sweep()
    assert not env.exists()


async def test_prepare_brings_everything_back_once_for_all_who_ask(bench: Bench) -> None:
    version = await built(bench, bench.version(app_files()))
    builder = bench.builder()
    assert builder.discard_unused(age=3600) == 0
    assert builder.discard_unused(age=-60) == 3, "the code, the environment, uv's downloads"
    assert builder.prepared(version) is None
    bench.fetched = 0
    givesup = asyncio.create_task(builder.prepare(version))
    others = [asyncio.create_task(builder.prepare(version)) for _ in range(5)]
    await asyncio.sleep(0)
    givesup.cancel()
    answers = await asyncio.gather(*others)
    assert bench.fetched == 1
    assert len(set(answers)) == 1
    assert answers[0].app_dir.is_dir()
    assert builder.prepared(version) == answers[0]


async def test_what_is_used_is_not_discarded(bench: Bench) -> None:
    old, used = [await built(bench, bench.version(app_files(), owner_id=owner)) for owner in ("own_1", "own_2")]
    builder = bench.builder()
    for path in (*(bench.home / "versions").iterdir(), *(bench.home / "envs").glob(f"*/{READY}")):
        os.utime(path, (0, 0))
    await builder.prepare(used)
    assert builder.discard_unused(age=3600) == 2
    assert builder.prepared(old) is None
    assert builder.prepared(used) is not None


async def test_requirements_that_do_not_exist_fail_with_uv_s_words(bench: Bench) -> None:
    log = Log()
    version = bench.version(app_files(requirements_txt="--no-index\nno-such-thing-at-all==9"))
    with pytest.raises(BuildFailed, match=r"requirements cannot be installed.*no-such-thing-at-all") as caught:
        await built(bench, version, log)
    assert "no-such-thing-at-all" in caught.value.traceback
    assert "no-such-thing-at-all" in log.text
    assert list((bench.home / "envs").glob("*/")) == []
    assert list((bench.home / "versions").iterdir()) == []


def test_a_build_sees_how_to_reach_the_index_and_nothing_else() -> None:
    environ = build_environ(
        {"HTTPS_PROXY": "http://proxy", "BAKEHOUSE_KEY": "secret", "AWS_SECRET_ACCESS_KEY": "secret"}
    )
    assert environ["HTTPS_PROXY"] == "http://proxy"
    assert "secret" not in environ.values()


async def test_uv_is_started_with_the_folders_it_needs_and_no_more(bench: Bench) -> None:
    seen: list[tuple[list[str], dict[str, str], list[Path]]] = []

    async def spawn(argv, *, env, cwd, writable, readable):  # type: ignore[no-untyped-def]
        seen.append((list(argv), dict(env), [*writable, *readable]))
        return await spawn_plain(argv, env=env, cwd=cwd, writable=writable, readable=readable)

    version = bench.version(app_files())
    log = Log()
    done = await bench.builder(spawn).build(version, log, log.step)
    assert len(seen) == 3, "create, install, add our client"
    app_dir = bench.home / "versions" / version.id / "app"
    for _, env, folders in seen:
        assert not {"PYTHONPATH", "VIRTUAL_ENV"} & env.keys()
        temp = bench.home / "tmp" / "builds"
        inside = {temp if path.parent == temp else path for path in folders if path.is_relative_to(bench.home)}
        assert inside == {temp, bench.home / "envs" / str(done.env_key), bench.home / "cache" / "uv" / "own_1", app_dir}


async def test_kernels() -> None:
    own = f"3.{sys.version_info.minor}"
    python, version = await find_interpreter("python", {})
    assert (version, await find_interpreter(f"python-{own}", {})) == (own, (python, own))
    assert (await asyncio.to_thread(output_of, python, "-V")).startswith(f"Python {own}.")
    with pytest.raises(BuildFailed, match=r"Python 3\.77 is not installed here"):
        await find_interpreter("python-3.77", build_environ(os.environ))
    with pytest.raises(BuildFailed, match=r"need Python 3\.9"):
        await find_interpreter("python-3.7", {})


def other_interpreters() -> list[Path]:
    """Pythons of another version that apps may ask for, on the PATH or kept by pyenv."""
    own = f"python3.{sys.version_info.minor}"
    folders = [Path(folder) for folder in os.get_exec_path()] + list(Path.home().glob(".pyenv/versions/*/bin"))
    found = [path for folder in folders for path in folder.glob("python3.[0-9]*") if path.name != own]
    minor = re.compile(r"python3\.(9|1\d)")
    # pyenv's shims have names of versions that they then refuse to run.
    return [path for path in found if minor.fullmatch(path.name) and ".pyenv/shims" not in str(path)]


async def test_an_app_may_have_another_python_than_the_server(bench: Bench) -> None:
    others = other_interpreters()
    if not others:
        pytest.skip("this machine has one Python only")
    kernel = others[0].name.replace("python", "python-")
    bench.environ = {**os.environ, "PATH": f"{others[0].parent}:{os.environ['PATH']}"}
    version = await built(bench, bench.version(app_files(inf_yml=f"name: a\nkernel: {kernel}")))
    environment = await bench.builder().prepare(version)
    answer = await asyncio.to_thread(output_of, environment.python, "-V")
    assert answer.startswith(f"Python {kernel.removeprefix('python-')}.")
    assert version.env_key != (await built(bench, bench.version(app_files()))).env_key


async def test_missing_wheels_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="make install"):
        await our_wheels({}, Log(), tmp_path / "none", tmp_path / "no-sources")


async def test_a_wheel_s_change_changes_the_digest(tmp_path: Path) -> None:
    for dist, module in (("bakehouse_infsh", "infsh"), ("bakehouse_inferencesh", "inferencesh")):
        make_wheel(tmp_path, dist, module)
    before = await our_wheels({}, Log(), tmp_path)
    make_zip(before.infsh, {"infsh/__init__.py": "changed"})
    assert (await our_wheels({}, Log(), tmp_path)).digest != before.digest
