"""Shows the secrets that it was given."""

import os

from infsh import BaseApp, BaseAppInput, BaseAppOutput


class Output(BaseAppOutput):
    token: str | None = None
    extra: str | None = None
    fixed: str | None = None
    pid: int


class App(BaseApp):
    def run(self, app_input: BaseAppInput) -> Output:
        return Output(
            token=os.environ.get("E2E_TOKEN"),
            extra=os.environ.get("E2E_EXTRA"),
            fixed=os.environ.get("E2E_FIXED"),
            pid=os.getpid(),
        )
