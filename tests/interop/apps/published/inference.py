"""An app that brings the published package; its ``File`` and its models are that package's."""

from importlib.metadata import version
from pathlib import Path

from inferencesh import BaseApp, BaseAppInput, BaseAppOutput, File


class AppInput(BaseAppInput):
    name: str
    document: File | None = None


class AppOutput(BaseAppOutput):
    greeting: str
    sdk: str
    size: int
    copy_of_it: File | None = None


class App(BaseApp):
    async def setup(self):
        self.greeting = "hello"

    async def run(self, app_input: AppInput) -> AppOutput:
        size, copied = 0, None
        if app_input.document is not None:
            content = Path(app_input.document.path).read_bytes()
            size = len(content)
            target = Path("copy.txt")
            target.write_bytes(content)
            copied = File.from_path(str(target))
        sdk = version("inferencesh")
        return AppOutput(greeting=f"{self.greeting} {app_input.name}", sdk=sdk, size=size, copy_of_it=copied)
