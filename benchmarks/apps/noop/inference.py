"""The smallest app: one instance, one call at a time, nothing to do."""

from infsh import BaseApp, BaseAppInput, BaseAppOutput


class NoopInput(BaseAppInput):
    n: int = 0


class NoopOutput(BaseAppOutput):
    n: int


class App(BaseApp):
    async def run(self, input_data: NoopInput) -> NoopOutput:
        return NoopOutput(n=input_data.n)
