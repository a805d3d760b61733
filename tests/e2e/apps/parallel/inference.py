"""Calls that wait for each other: they end only when ``n`` of them run together in one instance."""

import asyncio

from infsh import BaseApp, BaseAppInput, BaseAppOutput


class Input(BaseAppInput):
    n: int


class Output(BaseAppOutput):
    together: int


class App(BaseApp):
    async def setup(self):
        self.inside = 0
        self.all_in = asyncio.Event()

    async def run(self, app_input: Input) -> Output:
        self.inside += 1
        print(f"call {self.context.task_id}")
        if self.inside >= app_input.n:
            self.all_in.set()
        await self.all_in.wait()
        return Output(together=self.inside)
