"""Adapters: whose they are, where they may be written, and a training loop."""

from __future__ import annotations

import json
from concurrent.futures import Future
from pathlib import Path

import pytest

from bakehouse.engine.errors import BadRequest, Locked, NameTaken, NotFound
from bakehouse.engine.handle import Engine
from bakehouse.engine.model import ServedModel
from bakehouse.inferlets.calls.guest import Guest
from bakehouse.inferlets.errors import Refused
from tests.inferlets.calls.support import Make, context, forward, generated, model, taken

ZO = {"rank": 4, "alpha": 8.0, "population_size": 4, "mu_fraction": 0.5, "initial_sigma": 0.5}


@pytest.fixture(autouse=True)
def no_adapter_stays(engine: Engine) -> object:
    yield
    table = engine._models["dummy"].adapters
    assert table is not None
    for name in table.names():
        found = table.lookup(name)
        assert found is not None
        table.remove(found.id, "nobody")


def create(guest: Guest, name: str = "mine", zo: bool = False) -> int:
    made = int(taken(guest, guest.calls.adapters.create(model(guest), name)))
    if zo:
        assert taken(guest, guest.calls.adapters.zo_initialize(made, json.dumps(ZO))) == ""
    return made


def test_names_are_an_owners(make: Make) -> None:
    ada, bob = make(), make(owner="bob")
    which = create(ada)
    assert ada.calls.adapters.lookup(model(ada), "mine") == which
    assert bob.calls.adapters.lookup(model(bob), "mine") is None
    assert bob.calls.adapters.lookup(model(bob), "ada/mine") is None
    with pytest.raises(NameTaken):
        create(ada)
    create(bob)
    ada.close()
    again = make()
    assert again.calls.adapters.lookup(model(again), "mine") is not None


def test_the_operators_are_for_everybody_to_use_and_clone(engine: Engine, guest: Guest) -> None:
    with engine.session("dummy", "operator") as session:
        session.create_adapter("house").result()
    adapters = guest.calls.adapters
    which = adapters.lookup(model(guest), "house")
    assert which is not None
    assert len(generated(guest, context(guest), adapter=which, max_tokens=3)) == 3
    changes = (
        lambda: adapters.remove(which),
        lambda: adapters.lock(which),
        lambda: adapters.load(which, "x"),
        lambda: adapters.zo_initialize(which, json.dumps(ZO)),
        lambda: adapters.zo_update(which, "{}"),
    )
    for change in changes:
        with pytest.raises(BadRequest, match="clone it"):
            change()
    clone = int(taken(guest, adapters.clone(which, "house")))
    assert adapters.lookup(model(guest), "house") == clone
    assert adapters.lock(clone)


def test_an_owner_has_few(make: Make) -> None:
    guest, bob = make(), make(owner="bob")
    for number in range(8):
        which = create(guest, str(number))
    with pytest.raises(Refused, match=r"adapters: .* 8"):
        create(guest, "one more")
    with pytest.raises(Refused, match="adapters"):
        guest.calls.adapters.clone(which, "one more")
    create(bob)
    taken(guest, guest.calls.adapters.remove(which))
    create(guest, "one more")
    with pytest.raises(BadRequest, match="name"):
        create(bob, "")


def test_owners_leave_places_for_each_other(make: Make) -> None:
    """Of the engine's 16."""
    held = []
    for owner, number in (("ada", 8), ("bob", 4), ("cyd", 2), ("dan", 1), ("eve", 1)):
        guest = make(owner=owner)
        held += [(guest, create(guest, str(each))) for each in range(number)]
        with pytest.raises(Refused, match=r"adapters: .* leaves free of 16"):
            create(guest, "one more")
    for guest, which in held:
        taken(guest, guest.calls.adapters.remove(which))


def test_a_lock_goes_with_its_instance(make: Make) -> None:
    first, second = make(), make()
    which = create(first)
    there = second.calls.adapters.lookup(model(second), "mine")
    assert there is not None
    assert first.calls.adapters.lock(which)
    assert not second.calls.adapters.lock(there)
    with pytest.raises(Locked):
        taken(second, second.calls.adapters.zo_initialize(there, json.dumps(ZO)))
    first.close()
    assert second.calls.adapters.lock(there)
    second.calls.adapters.unlock(there)


def test_training_changes_what_is_generated(guest: Guest) -> None:
    adapters, which = guest.calls.adapters, create(guest, zo=True)

    def said(seed: int = 0) -> bytes:
        at = [{"indices": [0], "sampler": {"kind": "dist"}}]
        return forward(guest, tokens=[65], samplers=at, adapter=which, zo_seed=seed)[1]

    before = said()
    assert said(3) != before
    assert said(3) == said(3)
    options = json.dumps({"scores": [1.0, 0.5, 0.25, 0.0], "seeds": [1, 2, 3, -4]})
    assert taken(guest, adapters.zo_update(which, options)) == ""
    assert said() != before
    assert taken(guest, adapters.remove(which)) == ""
    with pytest.raises(NotFound):
        said()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("{", "options"),
        (json.dumps({**ZO, "sigma": 1}), "options.sigma"),
        (json.dumps({"rank": 4}), "options"),
        (json.dumps({**ZO, "rank": "many"}), "rank"),
    ],
)
def test_options_are_checked(guest: Guest, options: str, named: str) -> None:
    with pytest.raises(BadRequest, match=named):
        taken(guest, guest.calls.adapters.zo_initialize(create(guest), options))


@pytest.mark.parametrize(
    "options",
    [
        {"scores": 1, "seeds": []},
        {"seeds": [1]},
        {"scores": [1.0], "seeds": [1]},
        {"scores": ["x"] * 4, "seeds": [1] * 4},
    ],
)
def test_a_generation_is_checked(guest: Guest, options: object) -> None:
    which = create(guest, zo=True)
    with pytest.raises(BadRequest):
        taken(guest, guest.calls.adapters.zo_update(which, json.dumps(options)))


def test_files_are_below_the_owners_folder(make: Make, tmp_path: Path) -> None:
    guest = make()
    adapters, which = guest.calls.adapters, create(guest, zo=True)
    assert taken(guest, adapters.save(which, "nested/first")) == ""
    assert (tmp_path / "adapters" / "ada" / "nested" / "first").exists()
    assert taken(guest, adapters.load(which, "nested/first")) == ""
    bob = make(owner="bob")
    with pytest.raises((NotFound, BadRequest)):
        taken(bob, bob.calls.adapters.load(create(bob), "nested/first"))


def test_adapters_that_are_being_made_count(make: Make, served: ServedModel) -> None:
    first, second = make(), make()
    asked = [(guest, model(guest)) for guest in (first, second)]
    with served.loop.lock:  # as in the midst of a step
        waits = [
            (guest, guest.calls.adapters.create(which, f"{number}{guest.launch.id}"))
            for number in range(4)
            for guest, which in asked
        ]
        for guest, which in asked:
            with pytest.raises(Refused, match=r"adapters: .* 8"):
                guest.calls.adapters.create(which, "one more")
    for guest, wait in waits:
        taken(guest, wait)
    with pytest.raises(Refused, match=r"adapters: .* 8"):
        create(first, "one more")


def test_an_owner_saves_few(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bakehouse.inferlets.calls.adapters.SAVED", 3)
    guest, bob = make(), make(owner="bob")
    adapters, which = guest.calls.adapters, create(guest, zo=True)
    for path in ("a", "b/c", "b/d", "a"):
        assert taken(guest, adapters.save(which, path)) == ""
    with pytest.raises(Refused, match=r"adapters: .* 3"):
        adapters.save(which, "e")
    assert taken(bob, bob.calls.adapters.save(create(bob, zo=True), "a")) == ""


def test_saves_that_wait_for_their_turn_are_no_more(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bakehouse.inferlets.calls.adapters.SAVED", 2)
    guest, hold = make(), Future[None]()
    which = create(guest, zo=True)
    guest.aside.run(lambda: hold)
    waits = [guest.calls.adapters.save(which, str(number)) for number in range(3)]
    hold.set_result(None)
    assert [taken(guest, wait) for wait in waits[:2]] == ["", ""]
    with pytest.raises(Refused, match=r"adapters: .* 2"):
        taken(guest, waits[2])


def test_a_save_that_fails_leaves_no_folders(make: Make, tmp_path: Path) -> None:
    guest, hold = make(), Future[None]()
    adapters, which = guest.calls.adapters, create(guest, zo=True)
    brief = create(guest, "brief", zo=True)
    guest.aside.run(lambda: hold)
    saved, gone, long = (
        adapters.save(*asked) for asked in ((which, "a/b"), (brief, "a/c/d/e"), (which, "f/" + "x" * 300 + "/g"))
    )
    taken(guest, adapters.remove(brief))
    hold.set_result(None)
    assert taken(guest, saved) == ""
    with pytest.raises(NotFound):
        taken(guest, gone)
    with pytest.raises(BadRequest, match="path"):
        taken(guest, long)
    home = tmp_path / "adapters" / "ada"
    assert [each.name for each in home.iterdir()] == ["a"]
    assert [each.name for each in (home / "a").iterdir()] == ["b"]


@pytest.mark.parametrize("path", ["", ".", "..", "../bob/x", "a/../../bob/x", "/etc/x", "link/x", "a\0b", 5])
def test_paths_that_lead_out_are_refused(guest: Guest, tmp_path: Path, path: object) -> None:
    home = tmp_path / "adapters" / "ada"
    home.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (home / "link").symlink_to(tmp_path / "elsewhere")
    which = create(guest, zo=True)
    for call in (guest.calls.adapters.save, guest.calls.adapters.load):
        with pytest.raises(BadRequest, match="path"):
            call(which, path)  # type: ignore[arg-type]
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("owner", ["..", ".", "../x", "a/b"])
def test_an_owner_whose_name_is_no_folder_has_none(make: Make, owner: str) -> None:
    guest = make(owner=owner)
    with pytest.raises(BadRequest, match="path"):
        guest.calls.adapters.save(create(guest, zo=True), "x")


def test_without_a_folder_there_are_no_files(make: Make) -> None:
    guest = make(adapters=False)
    with pytest.raises(BadRequest, match="no folder"):
        guest.calls.adapters.save(create(guest, zo=True), "x")
