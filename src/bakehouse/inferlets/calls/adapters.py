"""Adapters of a guest's owner, and their training.

The engine's names are shared by all owners, so those of guests have the owner's before them: what one owner made no
other sees. An adapter without an owner is the operator's. Guests of all owners find it, run passes with it and clone
it; they do not change it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any

from bakehouse.engine.errors import BadRequest, EngineError
from bakehouse.engine.handle import ZoParams
from bakehouse.inferlets.calls.base import Bound, Interface, Model, check_size
from bakehouse.inferlets.calls.forms import fields, read
from bakehouse.inferlets.calls.results import Once
from bakehouse.inferlets.errors import Refused

#: Fields of `zo_initialize`, and what the engine calls them.
ZO = {
    "rank": "rank",
    "alpha": "alpha",
    "population_size": "population",
    "mu_fraction": "mu_fraction",
    "initial_sigma": "sigma",
}


#: Adapters of one owner on one model, of which the engine has few places: no more than are left free either, but for
#: its first, so that many owners find a place before all are taken.
MOST = 8
#: Those that are being made, by model and owner: the engine has their names when it is between two steps.
_coming: dict[tuple[str, str], set[object]] = {}
_guard = Lock()


#: Saved adapters of one owner, each a folder with this file.
SAVED, CONFIG = 64, "adapter_config.json"


class Adapters(Interface):
    def create(self, model: int, name: str) -> int:
        found = self._guest.models.get(model)
        return self._made(found, lambda: found.session.create_adapter(self._own(name)))

    def lookup(self, model: int, name: str) -> int | None:
        guest = self._guest
        found = guest.models.get(model)
        own = found.session.lookup_adapter(self._own(name))
        if own is not None:
            return guest.tunings.enter(Bound(found, own))
        shared = None if "/" in name else found.session.lookup_adapter(name)
        if shared is None:
            return None
        guest.shared_adapters.add(Bound(found, shared))
        return guest.tunings.enter(Bound(found, shared))

    def clone(self, adapter: int, name: str) -> int:
        model, found = self._guest.tunings.get(adapter)
        return self._made(model, lambda: model.session.clone_adapter(found, self._own(name)))

    def remove(self, adapter: int) -> int:
        model, found = self._changeable(adapter)

        def tell(_: None) -> str:
            self._guest.tunings.pop(adapter)
            return ""

        return self._guest.waits.add(lambda: Once(model.session.remove_adapter(found), tell))

    def lock(self, adapter: int) -> bool:
        model, found = self._changeable(adapter)
        return model.session.lock_adapter(found)

    def unlock(self, adapter: int) -> None:
        model, found = self._changeable(adapter)
        model.session.unlock_adapter(found)

    def load(self, adapter: int, path: str) -> int:
        model, found = self._changeable(adapter)
        place = self._place(path)

        def load() -> Future[None]:
            return self._of_owner(model.session.load_adapter(found, str(place)))

        return self._empty(lambda: self._guest.aside.run(load))

    def save(self, adapter: int, path: str) -> int:
        model, found = self._guest.tunings.get(adapter)
        place = self._place(path)
        self._check_folder(place)

        def save() -> Future[None]:
            self._check_folder(place)  # again: others may have been saved meanwhile
            made = _make(place.parent)
            try:
                future = model.session.save_adapter(found, str(place))
            except BaseException:
                _remove_empty(made)
                raise
            # Where nothing was saved, folders on the way to it are in nobody's account.
            future.add_done_callback(lambda _: _remove_empty(made))
            return self._of_owner(future)

        return self._empty(lambda: self._guest.aside.run(save))

    def zo_initialize(self, adapter: int, options: str) -> int:
        model, found = self._changeable(adapter)
        given = self._options(options, tuple(ZO))
        if missing := ZO.keys() - given.keys():
            raise BadRequest.at("options", f"needs {', '.join(sorted(missing))}")
        params = ZoParams(**{ZO[name]: value for name, value in given.items()})
        return self._empty(lambda: model.session.initialize_zo(found, params))

    def zo_update(self, adapter: int, options: str) -> int:
        model, found = self._changeable(adapter)
        given = self._options(options, ("scores", "seeds", "max_sigma"))
        scores, seeds = (self._list(given, name) for name in ("scores", "seeds"))
        sigma = given.get("max_sigma", 0.0)
        return self._empty(lambda: self._guest.aside.run(lambda: model.session.update_zo(found, scores, seeds, sigma)))

    # Names and places

    def _promise(self, model: Model) -> Callable[..., None]:
        """There will be one more; what this returns is to be called when it is there, or will not be."""
        owner, place = self._guest.launch.owner, object()
        capacity = model.session.adapter_capacity()
        with _guard:
            names = model.session.adapter_names()
            coming = _coming.setdefault((model.info.name, owner), set())
            mine = sum(name.startswith(f"{owner}/") for name in names) + len(coming)
            others = sum(len(each) for (name, _), each in _coming.items() if name == model.info.name)
            if mine >= min(MOST, capacity - len(names) - others):
                raise Refused(
                    f"adapters: an owner has at most {MOST} of one model, and no more than it leaves free of"
                    f" {capacity}; remove some",
                    field="adapters",
                )
            coming.add(place)
        return lambda *_: coming.discard(place)

    def _own(self, name: object) -> str:
        if not isinstance(name, str) or not name:
            raise BadRequest.at("name", f"must be a text, not {name!r}")
        return f"{self._guest.launch.owner}/{name}"

    def _changeable(self, adapter: int) -> Bound:
        found = self._guest.tunings.get(adapter)
        if found in self._guest.shared_adapters:
            raise BadRequest.at("adapter", "it is the operator's, for everybody; clone it to change it")
        return found

    def _place(self, path: object) -> Path:
        """*path* below the owner's folder. Raises `BadRequest` for what leads out of it, also by a link."""
        root = self._root()
        if not isinstance(path, str) or not path or "\0" in path:
            raise BadRequest.at("path", f"must be a path, not {path!r}")
        parts = PurePosixPath(path)
        base = (root / self._guest.launch.owner).resolve()
        place = (base / parts).resolve()
        if base.parent != root.resolve() or parts.is_absolute() or ".." in parts.parts or base not in place.parents:
            raise BadRequest.at("path", f"{path!r} leads out of the folder of your adapters; give one relative to it")
        return place

    def _root(self) -> Path:
        """The folder of all owners' adapters. Raises `BadRequest` where there is none."""
        if self._guest.adapters is None:
            raise BadRequest.at("path", "this host has no folder for adapters; its operator can give it one")
        return self._guest.adapters

    def _of_owner(self, future: Future[None]) -> Future[None]:
        """*future*, whose error speaks of paths as the program does: where the host keeps them is not its business."""
        base = f"{(self._root() / self._guest.launch.owner).resolve()}/"

        def tell(done: Future[None]) -> None:
            error = None if done.cancelled() else done.exception()
            if isinstance(error, EngineError):
                error.detail = error.detail.replace(base, "")
                error.args = (error.detail,)

        future.add_done_callback(tell)
        return future

    def _check_folder(self, place: Path) -> None:
        """A disk is everybody's; what is there may be written again."""
        root = self._guest.adapters
        if root is None or _exists(place):
            return
        if sum(1 for _ in (root / self._guest.launch.owner).rglob(CONFIG)) >= SAVED:
            raise Refused(f"adapters: an owner has at most {SAVED} saved ones; write over one", field="adapters")

    # Options and results

    def _options(self, options: str, known: tuple[str, ...]) -> dict[str, Any]:
        checked = check_size("message", options, self._guest.limits.message, "options")
        return fields("options", read("options", checked), known)

    def _list(self, given: dict[str, Any], name: str) -> list[Any]:
        found = given.get(name)
        if not isinstance(found, list):
            raise BadRequest.at(f"options.{name}", f"must be a list, not {found!r}")
        return found

    def _made(self, model: Model, start: Callable[[], Future[int]]) -> int:
        guest, arrived = self._guest, self._promise(model)

        def begin() -> Once[int]:
            future = start()
            future.add_done_callback(arrived)
            return Once(future, lambda made: str(guest.tunings.enter(Bound(model, made))))

        try:
            return guest.waits.add(begin)
        except BaseException:
            arrived()
            raise

    def _empty(self, start: Callable[[], Future[None]]) -> int:
        return self._guest.waits.add(lambda: Once(start(), lambda _: ""))


def _exists(path: Path) -> bool:
    with suppress(OSError):  # a name that no file can have
        return path.exists()
    return False


def _make(folder: Path) -> list[Path]:
    """Make *folder*; it and those above it that were not there, the lowest first. Raises `BadRequest`."""
    made: list[Path] = []
    try:
        for each in reversed((folder, *folder.parents)):
            if not _exists(each):
                each.mkdir(exist_ok=True)
                made.insert(0, each)
    except OSError as error:
        _remove_empty(made)
        raise BadRequest.at("path", f"its folder cannot be made: {error.strerror}") from error
    return made


def _remove_empty(folders: Sequence[Path]) -> None:
    with suppress(OSError):  # one has something in it, so those above it have too
        for folder in folders:
            folder.rmdir()
