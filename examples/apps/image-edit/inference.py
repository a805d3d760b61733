"""Changes an image, everywhere or where a mask is white, in steps that can be watched."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from infsh import BaseApp, BaseAppInput, BaseAppOutput, File
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from pydantic import Field

PREVIEW_SIDE = 320

# Each takes the original and how far to go, 0 to 1.
EDITS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "blur": lambda image, amount: image.filter(ImageFilter.GaussianBlur(16 * amount)),
    "grey": lambda image, amount: Image.blend(image, ImageOps.grayscale(image).convert("RGB"), amount),
    "invert": lambda image, amount: Image.blend(image, ImageOps.invert(image), amount),
    "brighten": lambda image, amount: ImageEnhance.Brightness(image).enhance(1 + amount),
}


class Input(BaseAppInput):
    image: File
    mask: File | None = Field(None, description="White is changed, black is kept; without it all is changed")
    edit: Literal["blur", "grey", "invert", "brighten"] = "blur"
    strength: float = Field(1.0, ge=0, le=1)
    steps: int = Field(4, ge=1, le=50)


class Output(BaseAppOutput):
    step: int
    preview: File | None = Field(None, description="A small picture of the step, while the app runs")
    image: File | None = Field(None, description="The result, at the end")
    width: int
    height: int


class App(BaseApp):
    def run(self, input_data: Input) -> Iterator[Output]:
        original = self._open(input_data.image).convert("RGB")
        mask = self._open(input_data.mask).convert("L").resize(original.size) if input_data.mask else None
        self.logger.info("%s on %d x %d pixels", input_data.edit, *original.size)
        image = original
        for step in range(1, input_data.steps + 1):
            if self.context.cancel_requested:
                return
            changed = EDITS[input_data.edit](original, input_data.strength * step / input_data.steps)
            image = Image.composite(changed, original, mask) if mask else changed
            self.report_progress(step, input_data.steps, input_data.edit)
            yield self._output(step, image, preview=self._save(self._small(image), f"preview-{step}.png"))
        yield self._output(input_data.steps, image, image=self._save(image, "result.png"))

    def _open(self, file: File) -> Image.Image:
        try:
            return ImageOps.exif_transpose(Image.open(str(file.path)))
        except OSError as error:
            raise ValueError(f"{file.filename} is not an image that can be read") from error

    def _small(self, image: Image.Image) -> Image.Image:
        copy = image.copy()
        copy.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
        return copy

    def _save(self, image: Image.Image, name: str) -> File:
        path = Path(self.temp_dir) / name
        image.save(path)
        return File.from_path(path)

    def _output(self, step: int, result: Image.Image, preview: File | None = None, image: File | None = None) -> Output:
        return Output(step=step, preview=preview, image=image, width=result.width, height=result.height)
