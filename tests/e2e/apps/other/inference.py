"""A second app, which wants a place of its own."""

import os

from infsh import BaseApp, BaseAppInput, BaseAppOutput


class Output(BaseAppOutput):
    pid: int


class App(BaseApp):
    def run(self, app_input: BaseAppInput) -> Output:
        return Output(pid=os.getpid())
