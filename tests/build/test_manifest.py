"""``inf.yml``: what it means, and what is refused with which path."""

from __future__ import annotations

import pytest

from bakehouse.build.machine import Gpu, Machine, check_resources, read_machine
from bakehouse.build.manifest import MAX_SIZE, parse_manifest, size
from bakehouse.core.app import Limits, Requirement, Resources
from bakehouse.core.errors import Invalid

FULL = b"""
name: ocr
namespace: ada
description: Reads text
category: image
kernel: python-3.11
version: "1.2.0"
default_function: read
resources:
  gpu: {count: 1, vram: 24, type: nvidia}
  ram: 16
env: {MODE: fast, LEVEL: 3, DEBUG: true}
secrets:
  - {key: TOKEN, description: a token}
  - {key: EXTRA, optional: true}
concurrency: 4
retries: 0
timeout: 90
idle_timeout: 30.5
shared: true
visibility: public
limits: {memory: 2, processes: 20, file_size: 500000000000, cpu_time: 600}
metadata: {tags: [a, b]}
"""


def test_every_key_arrives() -> None:
    manifest, warnings = parse_manifest(FULL)
    assert warnings == []
    assert (manifest.name, manifest.namespace, manifest.label) == ("ocr", "ada", "1.2.0")
    assert manifest.resources == Resources(1, 24 * 10**9, "nvidia", 16 * 10**9)
    assert manifest.env == {"MODE": "fast", "LEVEL": "3", "DEBUG": "true"}
    assert manifest.secrets == (Requirement("TOKEN", "a token"), Requirement("EXTRA", "", True))
    assert (manifest.concurrency, manifest.retries, manifest.timeout, manifest.idle_timeout) == (4, 0, 90, 30.5)
    assert (manifest.shared, manifest.visibility, manifest.default_function) == (True, "public", "read")
    assert manifest.limits == Limits(2 * 10**9, 20, 500 * 10**9, 600)
    assert (manifest.category, manifest.kernel, manifest.metadata) == ("image", "python-3.11", {"tags": ["a", "b"]})


def test_a_name_is_enough_and_empty_values_mean_not_given() -> None:
    manifest, warnings = parse_manifest(b"name: a\nenv:\nresources:\n")
    assert warnings == []
    assert (manifest.kernel, manifest.retries, manifest.concurrency, manifest.resources) == (
        "python",
        1,
        1,
        Resources(),
    )


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("resources: {gpu: {count: many}}", "/inf.yml/resources/gpu/count"),
        ("resources: {gpu: {count: -1}}", "/inf.yml/resources/gpu/count"),
        ("resources: {gpu: {type: quantum}}", "/inf.yml/resources/gpu/type"),
        ("resources: {ram: 8GB}", "/inf.yml/resources/ram"),
        ("resources: {ram: .nan}", "/inf.yml/resources/ram"),
        ("resources: []", "/inf.yml/resources"),
        ("concurrency: 0", "/inf.yml/concurrency"),
        ('concurrency: "4"', "/inf.yml/concurrency"),
        ("concurrency: true", "/inf.yml/concurrency"),
        ("retries: -1", "/inf.yml/retries"),
        ("timeout: 0", "/inf.yml/timeout"),
        ("timeout: .inf", "/inf.yml/timeout"),
        ("shared: maybe", "/inf.yml/shared"),
        ("visibility: secret", "/inf.yml/visibility"),
        ("category: music", "/inf.yml/category"),
        ("kernel: node-22", "/inf.yml/kernel"),
        ("env: {1X: a}", "/inf.yml/env"),
        ("env: {BAKEHOUSE_FD: 3}", "/inf.yml/env"),
        ("env: {X: [1]}", "/inf.yml/env/X"),
        ("secrets: [{description: no key}]", "/inf.yml/secrets/0/key"),
        ("secrets: [{key: 'a b'}]", "/inf.yml/secrets/0/key"),
        ("limits: {processes: 0}", "/inf.yml/limits/processes"),
        ("default_function: 'a b'", "/inf.yml/default_function"),
        ("version: 1.10", "/inf.yml/version"),
        ("version: a b", "/inf.yml/version"),
    ],
)
def test_a_bad_value_is_refused_with_its_path(line: str, path: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_manifest(b"name: a\n" + line.encode())
    assert caught.value.fields[0]["path"] == path
    assert path in caught.value.detail


@pytest.mark.parametrize("name", ["", "A", "a b", "-a", "a" * 65, "list", "a/b"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_manifest(f"name: {name!r}".encode())
    assert caught.value.fields[0]["path"] == "/inf.yml/name"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "must be a mapping"),
        (b"- a", "must be a mapping"),
        (b"name: [", "not YAML"),
        (b"\xff\xfe\xfa", "not YAML"),
        (b"name: a\nname: b", "stands twice"),
        (b"a: &x [1]\nb: *x", "aliases"),
        (b"name: !!python/object/apply:os.system [ls]", "not YAML"),
        (b"[" * 50_000, "not YAML"),
        (b"name: a\n#" + b"x" * MAX_SIZE, "bytes long"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        parse_manifest(data)


def test_unknown_keys_and_keys_without_effect_are_warnings() -> None:
    data = b"name: a\nintegrations: []\ncolour: red\nresources: {disk: 4, gpu: {mig: 1}}\nsecrets: [{key: A, kind: x}]"
    _, warnings = parse_manifest(data)
    assert warnings == [
        "/inf.yml/integrations has no effect: this server offers no integrations",
        "/inf.yml/colour is not a known key",
        "/inf.yml/resources/disk is not a known key",
        "/inf.yml/resources/gpu/mig is not a known key",
        "/inf.yml/secrets/0/kind is not a known key",
    ]


def test_sizes() -> None:
    assert [size(n) for n in (0, 1.5, 999, 1000, 10**9, 10**9 + 1)] == [
        0,
        1_500_000_000,
        999 * 10**9,
        10**9,
        10**15,
        10**9 + 1,
    ]


@pytest.mark.parametrize(
    ("gpu", "expected"),
    [
        ("{count: 2}", Resources(2, 0, "any")),
        ("{type: nvidia, vram: 8}", Resources(1, 8 * 10**9, "nvidia")),
        ("{count: 0, vram: 24, type: any}", Resources()),
        ("{count: 0, type: none}", Resources()),
    ],
)
def test_gpu_forms(gpu: str, expected: Resources) -> None:
    manifest, _ = parse_manifest(f"name: a\nresources: {{gpu: {gpu}}}".encode())
    assert manifest.resources == expected


@pytest.mark.parametrize(
    ("wanted", "path", "reason"),
    [
        (Resources(gpu_count=1, gpu_type="any"), "/inf.yml/resources/gpu/count", "asks for 1 GPU, and there are 0"),
        (Resources(ram=65 * 10**9), "/inf.yml/resources/ram", "asks for 65.0 GB memory, and there are 64.0 GB"),
    ],
)
def test_what_the_machine_lacks_is_refused_with_the_reason(wanted: Resources, path: str, reason: str) -> None:
    with pytest.raises(Invalid, match=reason) as caught:
        check_resources(wanted, Machine(64 * 10**9))
    assert caught.value.fields[0]["path"] == path


def test_gpus_are_matched_by_type_and_memory() -> None:
    machine = Machine(64 * 10**9, (Gpu("nvidia", 24 * 10**9), Gpu("nvidia", 8 * 10**9)))
    check_resources(Resources(2, 8 * 10**9, "nvidia"), machine)
    check_resources(Resources(1, 24 * 10**9, "any"), machine)
    with pytest.raises(Invalid, match="there are 0"):
        check_resources(Resources(1, 0, "amd"), machine)
    with pytest.raises(Invalid, match="GPU memory"):
        check_resources(Resources(2, 20 * 10**9, "any"), machine)
    check_resources(Resources(ram=10**15), Machine(0))


def test_this_machine_can_be_read() -> None:
    machine = read_machine()
    assert machine.ram > 2**28
    assert all(gpu.vram > 0 for gpu in machine.gpus)
