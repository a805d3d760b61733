"""Shows the secrets that it was given."""

import os
import uuid

from infsh import BaseApp, BaseAppInput, BaseAppOutput

INSTANCE = uuid.uuid4().hex


class Output(BaseAppOutput):
    token: str | None = None
    extra: str | None = None
    fixed: str | None = None
    instance: str


class App(BaseApp):
    def run(self, app_input: BaseAppInput) -> Output:
        return Output(
            token=os.environ.get("E2E_TOKEN"),
            extra=os.environ.get("E2E_EXTRA"),
            fixed=os.environ.get("E2E_FIXED"),
            instance=INSTANCE,
        )
