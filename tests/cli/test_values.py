"""What people write after --input and --file."""

from __future__ import annotations

from pathlib import Path

import pytest

from bakehouse.cli.failures import Exit, Failure
from bakehouse.cli.inputs import parse_files, parse_values


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("n=3", {"n": 3}),
        ("ratio=0.5", {"ratio": 0.5}),
        ("on=true", {"on": True}),
        ("nothing=null", {"nothing": None}),
        ("tags=[1, 2]", {"tags": [1, 2]}),
        ("prompt=a sunset", {"prompt": "a sunset"}),
        ('id="007"', {"id": "007"}),
        ("sum=a=b", {"sum": "a=b"}),
        ("empty=", {"empty": ""}),
        ("word=NaN", {"word": "NaN"}),
        ("word=Infinity", {"word": "Infinity"}),
        ('{"a": {"b": 1}}', {"a": {"b": 1}}),
    ],
)
def test_one_value(written: str, meant: dict[str, object]) -> None:
    assert parse_values([written]) == meant


def test_later_values_win_and_sources_mix(tmp_path: Path) -> None:
    path = tmp_path / "input.json"
    path.write_text('{"a": 1, "b": "ä"}')
    assert parse_values([f"@{path}", "-", "a=3"], stdin=lambda: '{"c": 2}') == {"a": 3, "b": "ä", "c": 2}


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("novalue", "write key=value"),
        ("=x", "write key=value"),
        ("@/no/such/file.json", "cannot be read"),
        ("{broken", "not JSON"),
        ("-", "must be a JSON object, not list"),
    ],
)
def test_what_cannot_be_meant(written: str, told: str) -> None:
    with pytest.raises(Failure) as caught:
        parse_values([written], stdin=lambda: "[1]")
    assert told in caught.value.message
    assert caught.value.status == Exit.USAGE


def test_files_must_exist(tmp_path: Path) -> None:
    path = tmp_path / "page.png"
    path.write_bytes(b"x")
    assert parse_files([f"image={path}"]) == {"image": path}
    for wrong in (f"image={tmp_path}", f"image={tmp_path / 'no'}", str(path)):
        with pytest.raises(Failure, match="--file"):
            parse_files([wrong])
