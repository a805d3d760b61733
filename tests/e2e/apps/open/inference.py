"""An app for everybody."""

import asyncio
import uuid

from infsh import BaseApp, BaseAppInput, BaseAppOutput

INSTANCE = uuid.uuid4().hex


class Input(BaseAppInput):
    pause: float = 0.0


class Output(BaseAppOutput):
    owner: str
    instance: str


class App(BaseApp):
    async def run(self, app_input: Input) -> Output:
        await asyncio.sleep(app_input.pause)
        return Output(owner=self.context.owner_id, instance=INSTANCE)
