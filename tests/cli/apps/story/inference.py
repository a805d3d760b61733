import asyncio
from collections.abc import AsyncIterator

from infsh import BaseApp, BaseAppInput, BaseAppOutput, File


class Input(BaseAppInput):
    words: int = 2
    wait: bool = False
    fail: bool = False
    attachment: File | None = None


class Output(BaseAppOutput):
    told: int
    size: int | None = None
    page: File | None = None


class App(BaseApp):
    async def run(self, input_data: Input) -> AsyncIterator[Output]:
        for word in range(1, input_data.words + 1):
            print(f"word {word}")
            self.report_progress(word, input_data.words, "telling")
            yield Output(told=word)
        if input_data.wait:
            print("waiting")
            await asyncio.Event().wait()
        if input_data.fail:
            raise ValueError("the story ends badly")
        page = self.temp_dir / "page.txt"
        page.write_text("the end")
        size = input_data.attachment.size if input_data.attachment else None
        yield Output(told=input_data.words, size=size, page=File(path=str(page)))
