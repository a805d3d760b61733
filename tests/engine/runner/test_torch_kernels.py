"""Linear layers: every kernel against the product with the weights it stands for; groups, parts and adapters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bakehouse.engine.runner.torch import kernels
from bakehouse.engine.runner.torch.linear import Linear, replace_linears
from bakehouse.engine.runner.torch.native import Native, load

needs_panels = pytest.mark.skipif(
    not (load() and load().multiplies),  # type: ignore[union-attr]
    reason="no native products: no C compiler, or a processor without AVX512-BF16",
)


def int8_values(weight: Tensor) -> Tensor:
    scale = (weight.float().abs().amax(dim=1, keepdim=True) / 127).bfloat16().float()
    return (weight.float() / scale).round().clamp(-127, 127) * scale


def int4_values(weight: Tensor) -> Tensor:
    groups = weight.float().view(weight.shape[0], -1, 32)
    largest = groups.gather(2, groups.abs().argmax(dim=2, keepdim=True))
    scale = (largest / -8).bfloat16().float()
    return ((groups / scale).round().clamp(-8, 7) * scale).view(weight.shape)


VALUES = {"bf16": lambda weight: weight.float(), "int8": int8_values, "int4": int4_values}


@needs_panels
@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("rows", [1, 2, 6, 7, 12, 13, 40])
@pytest.mark.parametrize(("outputs", "inputs"), [(96, 64), (80, 160), (33, 32)])
def test_panels_multiply_exactly_what_they_hold(kind: str, rows: int, outputs: int, inputs: int) -> None:
    torch.manual_seed(rows)
    weight, bias = torch.randn(outputs, inputs).bfloat16(), torch.randn(outputs).bfloat16()
    x = torch.randn(rows, inputs).bfloat16()
    native = load()
    assert native is not None
    got = kernels.Panels(native, kind, weight, bias)(x)
    wanted = x.float() @ VALUES[kind](weight).T + bias.float()
    assert got.shape == wanted.shape
    assert ((got.float() - wanted).abs() / (wanted.abs() + 1)).max() < 5e-3


@needs_panels
def test_a_rows_product_is_the_same_in_any_company() -> None:
    """Bit for bit: a row is summed in one order, whoever stands beside it."""
    torch.manual_seed(0)
    native = load()
    assert native is not None
    x = torch.randn(40, 128).bfloat16()
    for kind in VALUES:
        kernel = kernels.Panels(native, kind, torch.randn(64, 128).bfloat16(), None)
        assert torch.equal(torch.cat([kernel(x[i : i + 1]) for i in range(40)]), kernel(x))


@pytest.mark.parametrize(("quantise", "error"), [("int8", 0.02), ("int4", 0.2), (None, 0.01)])
@pytest.mark.parametrize("native", [None, pytest.param(load(), id="native")])
def test_any_machines_kernel_is_near_the_weight(quantise: str | None, error: float, native: Native | None) -> None:
    torch.manual_seed(1)
    weight, bias = torch.randn(96, 128).bfloat16(), torch.randn(96).bfloat16()
    x = torch.randn(5, 128).bfloat16()
    got = kernels.make_kernel(weight, bias, quantise, native)(x).float()
    wanted = x.float() @ weight.float().T + bias.float()
    assert (got - wanted).norm() / wanted.norm() < error


def test_a_weight_of_zeros_is_zero_when_quantised() -> None:
    for quantise in ("int8", "int4"):
        for native in (None, load()):
            kernel = kernels.make_kernel(torch.zeros(32, 64).bfloat16(), None, quantise, native)
            assert kernel(torch.randn(3, 64).bfloat16()).abs().max() == 0


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.Module()
        for name, outputs in (("q_proj", 48), ("k_proj", 16), ("v_proj", 16)):
            setattr(self.attn, name, nn.Linear(32, outputs))
        self.o_proj = nn.Linear(48, 32, bias=False)


def test_groups_are_one_product_and_keep_their_names() -> None:
    toy = Toy()
    x = torch.randn(2, 3, 32)
    old = [getattr(toy.attn, name)(x) for name in ("q_proj", "k_proj", "v_proj")]
    linears = replace_linears(toy, None, None)
    names = [[part.name for part in linear.parts] for linear in linears]
    assert names == [["o_proj"], ["attn.q_proj", "attn.k_proj", "attn.v_proj"]] or names == [
        ["attn.q_proj", "attn.k_proj", "attn.v_proj"],
        ["o_proj"],
    ]
    for name, wanted in zip(("q_proj", "k_proj", "v_proj"), old, strict=True):
        assert torch.allclose(getattr(toy.attn, name)(x), wanted, atol=1e-6)
    assert {id(m) for m in toy.modules() if isinstance(m, Linear)} == {id(linear) for linear in linears}


def test_members_asked_in_any_order_and_with_other_inputs_are_right() -> None:
    toy = Toy()
    x, other = torch.randn(3, 32), torch.randn(3, 32)
    q, v = toy.attn.q_proj, toy.attn.v_proj
    wanted = [v(x), q(other), q(x), v(x)]
    replace_linears(toy, None, None)
    got = [toy.attn.v_proj(x), toy.attn.q_proj(other), toy.attn.q_proj(x), toy.attn.v_proj(x)]
    for mine, theirs in zip(got, wanted, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_an_adapter_is_given_flat_rows_and_adds_in_place() -> None:
    toy = Toy()
    linear = next(made for made in replace_linears(toy, None, None) if len(made.parts) == 3)
    x = torch.randn(2, 3, 32)
    before = toy.attn.k_proj(x)
    shapes = []

    def add(rows: Tensor, y: Tensor) -> None:
        shapes.append((tuple(rows.shape), tuple(y.shape)))
        y[:, linear.parts[1].start : linear.parts[1].stop] += 1

    linear.adapter = add
    assert torch.allclose(toy.attn.k_proj(x.clone()), before + 1)
    assert shapes == [((6, 32), (6, 80))]


def test_without_a_compiler_there_are_no_native_kernels_and_a_log_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert load.__wrapped__() is None
    assert "there is no C compiler" in caplog.text


def test_a_compiler_that_fails_is_told_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "gcc"
    broken.write_text("#!/bin/sh\necho out of cheese >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert load.__wrapped__() is None
    assert "out of cheese" in caplog.text
    assert [file.name for file in (tmp_path / ".cache" / "bakehouse").iterdir()] == []
