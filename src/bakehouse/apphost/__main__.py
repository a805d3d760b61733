"""Started by path in an app's own environment: ``python -I -X utf8 .../apphost/__main__.py``.

The package loads itself under a private name: its folder must not be on ``sys.path``, where `loader` or `messages`
would hide modules of the app, and ``bakehouse`` must not become importable to it.
"""

import importlib
import importlib.util
import sys
from pathlib import Path

_NAME = "_bakehouse_apphost"


def _load() -> None:
    folder = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(
        _NAME, str(folder / "__init__.py"), submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {folder}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_NAME] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    _load()
    sys.exit(importlib.import_module(_NAME + ".child").main())
