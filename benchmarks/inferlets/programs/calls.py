"""What single calls of the host cost, in microseconds: medians of many, timed by the guest."""

import json
import time
from array import array

from inferlet import Grammar, Matcher, Model, runtime, session
from inferlet._host import host
from inferlet._packing import pack_ids, unpack_ids

VOCABULARY = 150_000


def median(call, times: int) -> float:
    took = []
    for _ in range(times):
        began = time.perf_counter_ns()
        call()
        took.append(time.perf_counter_ns() - began)
    return sorted(took)[times // 2] / 1000


def main() -> str:
    model = Model.load(runtime.models()[0])
    matcher = Matcher(Grammar.json(), model.tokenizer())
    grammars, handle = host().grammars, matcher._handle
    # Runs of one id each: the longest mask that there is for such a vocabulary.
    runs = array("I", [1] * VOCABULARY)
    mask = grammars.create_mask(pack_ids(runs))
    file = session.receive_file()
    told = {
        "scalar": median(lambda: grammars.terminated(handle), 20_000),
        "text": median(host().runtime.instance_id, 10_000),
        "mask_in": median(lambda: grammars.release_mask(grammars.create_mask(pack_ids(runs))), 200),
        "mask_out": median(lambda: unpack_ids(grammars.read_mask(mask)), 200),
        "mask_next": median(lambda: grammars.release_mask(grammars.next_mask(handle)), 500),
        "file": median(lambda: session.send_file(file), 50),
    }
    return json.dumps(told)
