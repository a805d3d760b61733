"""The kernels compile for real devices, which triton can do without one, and fit their shared memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

#: Bytes of shared memory that one program may have: sm_80 (A100), sm_86 (consumer cards), sm_90 (H100, H200).
SHARED = {80: 166_912, 86: 101_376, 90: 232_448}
CASES = [
    {"dtype": "bf16", "dim": 128, "few": True, "parts": 16},
    {"dtype": "bf16", "dim": 128, "few": False, "parts": 1},
    {"dtype": "bf16", "dim": 256, "few": False, "parts": 1, "window": 1024, "everything": True},
    {"dtype": "fp16", "dim": 64, "few": True, "parts": 4, "window": 128, "everything": True},
    {"dtype": "fp32", "dim": 128, "few": False, "parts": 1, "everything": True},
]
#: In a process of its own: here the kernels may be defined for the interpreter.
SCRIPT = """
import json, sys
from triton import compile, next_power_of_2
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from bakehouse.engine.runner.torch.cuda import kernels, paged

def build(case, capability):
    pointer, group, dim = "*" + case["dtype"], 2, case["dim"]
    everything = case.get("everything", False)
    tile = (paged.LEAST if case["few"] else paged.MANY_ROWS) // group
    sizes = paged.blocks(dim, dim, 4 if case["dtype"] == "fp32" else 2, tile * group)
    types = dict.fromkeys(kernels.attend_rows.arg_names, "*i64")
    types |= dict.fromkeys(("query", "pool", "out", "sinks"), pointer)
    types |= dict.fromkeys(("partial", "sums"), "*fp32" if case["parts"] > 1 else pointer)
    types |= dict.fromkeys(("segment_count", "query_row", "query_head"), "i32")
    types |= dict(scale="fp32", softcap="fp32", mask="*i8" if everything else "*i64")
    fixed = dict(PAGE=16, HEADS=8, GROUP=group, KEY_DIM=dim, VALUE_DIM=dim, STRIDE=16 * dim + 32,
                 WINDOW=case.get("window", 0), HAS_CAP=everything, HAS_SINKS=everything, HAS_MASK=everything,
                 TILE=tile, PARTS=case["parts"], PART_TOKENS=paged.PART_TOKENS, MOST_PARTS=paged.MOST_PARTS,
                 ROWS_BLOCK=sizes.rows, KEYS_BLOCK=sizes.keys, KEY_BLOCK=sizes.key, VALUE_BLOCK=sizes.value, WIDE=False)
    types |= dict.fromkeys(fixed, "constexpr")
    names = kernels.attend_rows.arg_names
    source = ASTSource(kernels.attend_rows, types, {(names.index(name),): value for name, value in fixed.items()})
    options = {"num_warps": paged.WARPS, "num_stages": paged.STAGES}
    return compile(source, target=GPUTarget("cuda", capability, 32), options=options).metadata.shared

print(json.dumps([build(case, int(sys.argv[2])) for case in json.loads(sys.argv[1])]))
"""


@pytest.mark.parametrize("capability", SHARED)
def test_the_kernels_compile_and_fit(capability: int) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, json.dumps(CASES), str(capability)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    used = json.loads(run.stdout)
    assert all(0 < each <= SHARED[capability] for each in used), used
