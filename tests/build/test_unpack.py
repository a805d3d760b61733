"""Packages that are fine, and packages that attack."""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bakehouse.build.trees import remove_tree
from bakehouse.build.unpack import PackageLimits, read_manifest, scan, unpack
from bakehouse.core.errors import Invalid, TooLarge
from tests.build.support import app_files, make_tar, make_zip


def regular(name: str, mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode = mode
    return info


def test_a_zip_is_unpacked_read_only_and_keeps_the_executable_bit(tmp_path: Path) -> None:
    package = make_zip(tmp_path / "p.zip", {"inf.yml": "name: a", "bin/tool": "#!/bin/sh"}, executable=("bin/tool",))
    into = tmp_path / "app"
    contents = unpack(package, into)
    assert contents.files == ("bin/tool", "inf.yml")
    assert (into / "inf.yml").read_text() == "name: a"
    modes = {name: stat.S_IMODE((into / name).stat().st_mode) for name in (".", "bin", "bin/tool", "inf.yml")}
    assert modes == {".": 0o555, "bin": 0o555, "bin/tool": 0o555, "inf.yml": 0o444}
    remove_tree(into)
    assert not into.exists()


def test_the_digest_is_of_the_content_not_of_the_archive(tmp_path: Path) -> None:
    files = {"inf.yml": "name: a", "x/y.py": "pass"}
    first = scan(make_zip(tmp_path / "1.zip", files))
    turned = scan(make_zip(tmp_path / "2.zip", dict(reversed(files.items()))))
    tar = scan(make_tar(tmp_path / "3.tgz", [(regular(name), text.encode()) for name, text in files.items()]))
    assert first.digest == turned.digest == tar.digest
    for changed in ({**files, "x/y.py": "pass\n"}, {"inf.yml": "name: a", "x/z.py": "pass"}):
        assert scan(make_zip(tmp_path / "c.zip", changed)).digest != first.digest
    assert scan(make_zip(tmp_path / "4.zip", files, executable=("x/y.py",))).digest != first.digest


def test_the_manifest_is_read_without_unpacking(tmp_path: Path) -> None:
    package = make_zip(tmp_path / "p.zip", app_files(inf_yml="name: shout\nfoo: 1\n", packages_txt="ffmpeg"))
    manifest, digest, warnings = read_manifest(package)
    assert manifest.name == "shout"
    assert digest == scan(package).digest
    assert warnings == [
        "/inf.yml/foo is not a known key",
        "packages.txt has no effect: system packages are the operator's to install",
    ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/etc/passwd", "absolute path"),
        ("../out", "leaves the package"),
        ("a/../../out", "leaves the package"),
        ("a\\..\\out", "backslash"),
        ("a\nb", "control character"),
        ("a" * 256, "too long"),
        ("/".join(["a" * 200] * 6), "too long"),
    ],
)
def test_a_dangerous_name_is_refused_and_nothing_is_written(tmp_path: Path, name: str, reason: str) -> None:
    inside = tmp_path / "deep" / "inside"
    for package in (
        make_zip(tmp_path / "p.zip", {name: "x"}),
        make_tar(tmp_path / "p.tgz", [(regular(name), b"x")]),
    ):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(Invalid, match=reason):
            scan(package)
        with pytest.raises(Invalid, match=reason):
            unpack(package, inside)
        assert [path for path in sorted(tmp_path.rglob("*")) if path not in before] in (
            [],
            [inside.parent, inside],
        )
        remove_tree(inside.parent)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    info = regular("link")
    info.type = kind
    info.linkname = "/etc/passwd"
    with pytest.raises(Invalid, match="is a link"):
        scan(make_tar(tmp_path / "p.tgz", [(info, b"")]))


def test_a_tar_header_as_large_as_a_bomb_is_refused(tmp_path: Path) -> None:
    info = regular("a")
    info.pax_headers = {"comment": "x" * (40 << 20)}
    package = make_tar(tmp_path / "p.tgz", [(info, b"x")])
    assert package.stat().st_size < 200_000
    with pytest.raises(TooLarge, match="headers"):
        scan(package)


def test_a_symlink_in_a_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(Invalid, match="is a link"):
        scan(tmp_path / "p.zip")


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["a.py", "A.py"], "only by case"),
        (["Dir/a.py", "dir/b.py"], "only by case"),
        (["é", "e\u0301"], "only by case or accents"),
        (["a", "a/b"], "twice"),
        (["a/b", "a"], "twice"),
        (["a", "./a"], "twice"),
    ],
)
def test_names_that_collide_are_refused(tmp_path: Path, names: list[str], reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        scan(make_tar(tmp_path / "p.tgz", [(regular(name), b"x") for name in names]))


def test_a_zip_bomb_is_refused_while_reading(tmp_path: Path) -> None:
    package = make_zip(tmp_path / "bomb.zip", {"zeros": bytes(80 << 20)})
    assert package.stat().st_size < 200_000
    with pytest.raises(TooLarge, match="200 times its size"):
        unpack(package, tmp_path / "app")
    written = (tmp_path / "app" / "zeros").stat().st_size
    assert written <= 65 << 20, "it must stop at the limit, not at the end"


def test_size_and_count_are_limited(tmp_path: Path) -> None:
    package = make_zip(tmp_path / "p.zip", {f"f{i}": os.urandom(100) for i in range(20)})
    with pytest.raises(TooLarge, match="more than 10 entries"):
        scan(package, PackageLimits(entries=10))
    with pytest.raises(TooLarge, match="more than 1000 bytes"):
        scan(package, PackageLimits(size=1000))
    assert scan(package, PackageLimits(entries=20, size=2000)).size == 2000


def test_a_zip_that_lies_about_its_sizes_is_refused(tmp_path: Path) -> None:
    package = make_zip(tmp_path / "p.zip", {"a.txt": "x" * 1000})
    data = bytearray(package.read_bytes())
    at = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 24, 5)  # the uncompressed size in the central directory
    package.write_bytes(data)
    with pytest.raises(Invalid, match="cannot be read"):
        scan(package)


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    package = make_zip(tmp_path / "p.zip", {"a.txt": "x"})
    data = bytearray(package.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    package.write_bytes(data)
    with pytest.raises(Invalid, match="encrypted"):
        scan(package)


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"PK\x03\x04garbage", b"\x1f\x8bgarbage", b"\x1f\x8b\x08\x00" + bytes(20)]
)
def test_garbage_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "p").write_bytes(data)
    with pytest.raises(Invalid, match="refused"):
        scan(tmp_path / "p")


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    whole = make_tar(
        tmp_path / "p.tgz", [(regular("a"), os.urandom(5000)), (regular("b"), os.urandom(5000))]
    ).read_bytes()
    for length in (10, 3000, len(whole) - 4):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(Invalid, match="refused"):
            scan(tmp_path / "cut")


@given(noise=st.binary(max_size=40), at=st.floats(0, 1), tar=st.booleans())
@settings(max_examples=150, deadline=None)
def test_damage_never_raises_anything_but_our_errors(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: float, tar: bool
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    files = {"inf.yml": "name: a", "inference.py": "x" * 500, "d/e": "y"}
    if tar:
        package = make_tar(folder / "p", [(regular(name), text.encode()) for name, text in files.items()])
    else:
        package = make_zip(folder / "p", files)
    data = package.read_bytes()
    cut = int(at * len(data))
    package.write_bytes(data[:cut] + noise + data[cut + len(noise) :])
    with contextlib.suppress(Invalid, TooLarge):  # damage may be refused or not matter; a crash fails the test
        read_manifest(package)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"no inf\.yml at the top"):
        read_manifest(make_zip(tmp_path / "1.zip", {"app/inf.yml": "name: a"}))
    with pytest.raises(Invalid, match=r"no inference\.py"):
        read_manifest(make_zip(tmp_path / "2.zip", {"inf.yml": "name: a"}))
