"""An app whose setup raises."""

from infsh import BaseApp, BaseAppInput, BaseAppOutput


class App(BaseApp):
    async def setup(self):
        raise RuntimeError("the weights are missing")

    async def run(self, app_input: BaseAppInput) -> BaseAppOutput:
        return BaseAppOutput()
