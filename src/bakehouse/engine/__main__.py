"""``python -m bakehouse.engine``: an engine as a process of its own, started by `supervise`; `child` says how."""

from __future__ import annotations

import sys
from pathlib import Path

from bakehouse.engine.child import Stop, run_child
from bakehouse.engine.launching import Config


async def _serve(config: Config, path: Path) -> Stop:
    # Imported here: it loads torch, and what is missing of it must be told as every other refusal is.
    from bakehouse.engine.handle import Engine
    from bakehouse.engine.serve import Server
    from bakehouse.engine.watchdog import Watchdog

    engine = await Engine.start(config.specs)
    watchdog = Watchdog(engine.trouble)
    server = Server(engine, path)
    await server.start()

    async def stop() -> None:
        watchdog.close()
        await server.close(config.drain)
        await engine.close()

    return stop


if __name__ == "__main__":
    sys.exit(run_child("bakehouse.engine", _serve))
