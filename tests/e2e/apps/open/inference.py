"""An app for everybody."""

import asyncio
import os

from infsh import BaseApp, BaseAppInput, BaseAppOutput


class Input(BaseAppInput):
    pause: float = 0.0


class Output(BaseAppOutput):
    owner: str
    pid: int


class App(BaseApp):
    async def run(self, app_input: Input) -> Output:
        await asyncio.sleep(app_input.pause)
        return Output(owner=self.context.owner_id, pid=os.getpid())
