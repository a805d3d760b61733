"""Tiny real models served in this process, and `inferlet` connected to a guest of them, as in native mode."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from inferlet import Model

from bakehouse.engine.handle import Engine
from bakehouse.engine.model import ServedModel
from bakehouse.engine.spec import ModelSpec
from tests.engine import models, tokenizers
from tests.engine.session.support import settled
from tests.engine.tiny import Folder, eager, folder, one_thread
from tests.inferlets.examples.support import Seen, connected
from tests.inferlets.right.support import Served, no_services

__all__ = ["eager", "folder", "one_thread"]

Connect = Callable[..., AbstractContextManager[None]]
Speaker = Callable[[str], AbstractContextManager[tuple[Model, Path]]]


@pytest.fixture(scope="session")
def served(folder: Folder) -> Iterator[Served]:
    """Models by family, loaded when they are first asked for."""
    made = Served(lambda family: ServedModel.load(spec_of(family, folder(family))))
    yield made
    made.close()


def spec_of(family: str, path: Path) -> ModelSpec:
    return ModelSpec(
        name=family,
        source=str(path),
        device="cpu",
        dtype="fp32",
        kv_tokens=8192,
        max_context=1024,
        prefill_chunk=32,
    )


@pytest.fixture
def connect(served: Served, tmp_path: Path) -> Iterator[Connect]:
    """``with connect("qwen3"):`` makes `inferlet` speak to that model. Afterwards nothing of it may be left."""

    def to(*families: str, owner: str = "ada", id: str = "native") -> AbstractContextManager[None]:
        engine = Engine([served[family] for family in families])
        return connected(engine, no_services(), Seen(), owner=owner, id=id, adapters=tmp_path / "adapters")

    yield to
    for model in served.used():
        settled(model)


@pytest.fixture
def model(connect: Connect) -> Iterator[Model]:
    """The tiny qwen3."""
    with connect("qwen3"):
        yield Model.load("qwen3")


#: A family of chat formats, and a tiny model that runs here to speak it.
SPEAKERS = {
    "gemma": "gemma3",
    "gpt_oss": "gpt_oss",
    "llama2": "llama",
    "llama3": "llama",
    "mistral3": "mistral",
    "olmo3": "olmo3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "r1": "deepseek_v3",
}


@pytest.fixture
def speaker(tmp_path: Path) -> Speaker:
    """``with speaker("llama3") as (model, folder):`` serves a tiny model with that family's tokenizer and template."""

    @contextmanager
    def serve(family: str) -> Iterator[tuple[Model, Path]]:
        path = make_speaker(tmp_path / family, family)
        served = ServedModel.load(spec_of(family, path))
        try:
            with connected(Engine([served]), no_services(), Seen()):
                yield Model.load(family), path
            settled(served)
        finally:
            served.close()

    return serve


def make_speaker(path: Path, family: str) -> Path:
    path.mkdir()
    models.make_model(path, SPEAKERS[family], vocab_size=tokenizers.VOCABULARY)
    end = tokenizers.build(family).token_to_id(tokenizers.FAMILIES[family].eos or "")
    for name in ("config.json", "generation_config.json"):
        told = json.loads((path / name).read_text()) | {"eos_token_id": end}
        (path / name).write_text(json.dumps(told))
    return tokenizers.save(path, family)
