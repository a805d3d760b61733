"""What the documents run: takes any of their inputs and streams logs, progress and partial output."""

import asyncio

from infsh import BaseApp, BaseAppInput, BaseAppOutput, BaseAppSetup


class SceneSetup(BaseAppSetup):
    model: str = "plain"


class SceneInput(BaseAppInput):
    prompt: str = ""
    key: str = ""
    frames: int = 4


class SceneOutput(BaseAppOutput):
    scene: str
    model: str


class App(BaseApp):
    async def setup(self, config: SceneSetup):
        self.model = config.model

    async def run(self, app_input: SceneInput):
        scene = ""
        for number in range(1, app_input.frames + 1):
            print(f"frame {number}")
            scene += f"[{app_input.prompt or app_input.key} {number}]"
            self.report_progress(number, app_input.frames)
            yield SceneOutput(scene=scene, model=self.model)
            await asyncio.sleep(0.02)
