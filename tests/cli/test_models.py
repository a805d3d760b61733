"""``bakehouse models``: files of the data directory, what is refused, and a bench over a real engine process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.support import Command


def test_a_model_is_added_listed_and_removed(bakehouse: Command, tmp_path: Path) -> None:
    home = ("--home", tmp_path)
    added = bakehouse("models", "add", "small", "dummy", "--kv-tokens", "4096", *home, "--json")
    assert added.status == 0, added.err
    assert (added.json["name"], added.json["architecture"], added.json["kv_tokens"]) == ("small", "dummy", 4096)
    assert Path(added.json["path"]).read_text() == 'source = "dummy"\nkv_tokens = 4096\n'
    (listed,) = bakehouse("models", "list", *home, "--json").json
    assert (listed["name"], listed["source"], listed["dtype"]) == ("small", "dummy", "auto")
    assert "4096 tokens" in bakehouse("models", "list", *home).out
    assert bakehouse("models", "remove", "small", *home).status == 0
    assert bakehouse("models", "list", *home, "--json").json == []


def test_a_name_is_written_over_only_when_asked(bakehouse: Command, tmp_path: Path) -> None:
    home = ("--home", tmp_path)
    assert bakehouse("models", "add", "small", "dummy", *home).status == 0
    again = bakehouse("models", "add", "small", "dummy", "--max-context", "128", *home)
    assert again.status == 2
    assert "--replace" in again.err
    assert bakehouse("models", "add", "small", "dummy", "--max-context", "128", "--replace", *home).status == 0
    assert bakehouse("models", "list", *home, "--json").json[0]["max_context"] == 128


def test_a_hub_id_is_kept_unseen(bakehouse: Command, tmp_path: Path) -> None:
    added = bakehouse("models", "add", "qwen", "Qwen/Qwen3-0.6B", "--kv-memory", "2GiB", "--home", tmp_path, "--json")
    assert (added.status, added.json["architecture"], added.json["kv_bytes"]) == (0, None, 2 * 2**30)
    assert "first loaded" in added.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["Upper", "dummy"], "lower-case"),
        (["../escape", "dummy"], "lower-case"),
        (["x", "dummy", "--dtype", "fp8"], "dtype"),
        (["x", "dummy", "--kv-memory", "much"], "--kv-memory"),
        (["x", "dummy", "--kv-memory", "1GiB", "--kv-tokens", "5"], "not as both"),
        (["x", "dummy", "--kv-tokens", "0"], "kv_tokens"),
    ],
)
def test_what_is_wrong_is_named(bakehouse: Command, tmp_path: Path, arguments: list[str], told: str) -> None:
    ended = bakehouse("models", "add", *arguments, "--home", tmp_path)
    assert ended.status == 2
    assert told in ended.err
    assert not (tmp_path / "models").exists()


def test_folders_that_are_no_models_are_refused_by_file(bakehouse: Command, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    folder = tmp_path / "folder"
    for told in ("does not exist", "config.json"):
        ended = bakehouse("models", "add", "x", folder, "--home", tmp_path)
        assert ended.status == 2
        assert told in ended.err
        assert str(folder) in ended.err.replace("\n", "")
        folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "mamba", "architectures": ["MambaForCausalLM"]}))
    ended = bakehouse("models", "add", "x", folder, "--home", tmp_path)
    assert ended.status == 2
    assert "MambaForCausalLM" in ended.err


def test_a_file_that_was_spoiled_is_named(bakehouse: Command, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "bad.toml").write_text('source = "dummy"\nspeed = "fast"\n')
    for verb in (["list"], ["bench", "bad"]):
        ended = bakehouse("models", *verb, "--home", tmp_path)
        assert ended.status == 2
        assert "bad.toml" in ended.err
        assert "speed" in ended.err
    assert bakehouse("models", "remove", "bad", "--home", tmp_path).status == 0
    assert bakehouse("models", "list", "--home", tmp_path, "--json").json == []


def test_a_model_that_is_not_here(bakehouse: Command, tmp_path: Path) -> None:
    for verb in ("remove", "bench"):
        ended = bakehouse("models", verb, "nothing", "--home", tmp_path)
        assert ended.status == 2
        assert "models list" in ended.err


def test_a_bench_starts_an_engine_and_measures_it(bakehouse: Command, tmp_path: Path) -> None:
    pytest.importorskip("numpy")
    assert bakehouse("models", "add", "small", "dummy", "--home", tmp_path).status == 0
    shape = ("--tokens", "6", "--sequences", "1", "--sequences", "3", "--prompt", "64")
    ended = bakehouse("models", "bench", "small", *shape, "--home", tmp_path, "--json")
    assert ended.status == 0, ended.err
    assert (ended.json["model"], ended.json["prompt"]) == ("small", 64)
    assert ended.json["prefill_tokens_per_s"] > 0
    assert [row["sequences"] for row in ended.json["decode"]] == [1, 3]
    assert all(row["tokens_per_s"] > 0 for row in ended.json["decode"])
    drawn = bakehouse("models", "bench", "small", *shape, "--home", tmp_path)
    assert "decode, 3 sequences" in drawn.out


def test_a_bench_of_a_folder_that_went_away_says_so(bakehouse: Command, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "gone.toml").write_text(f'source = "{tmp_path / "gone"}"\n')
    ended = bakehouse("models", "bench", "gone", "--home", tmp_path)
    assert ended.status == 2
    assert "does not exist" in ended.err
    assert "Traceback" not in ended.err
