"""Reads the text of an image: where the lines are first, then one line after another."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from infsh import BaseApp, BaseAppInput, BaseAppOutput, BaseAppSetup, File
from pydantic import BaseModel, Field
from rapidocr_onnxruntime import RapidOCR

# The shorter side that the detector works at, in pixels: small print needs more of them.
DETECTOR_SIDE = {"fast": 736, "accurate": 1280}
SURE = 0.9
INK = (40, 110, 230)  # blue, green, red


class Setup(BaseAppSetup):
    detail: Literal["fast", "accurate"] = Field("fast", description="accurate finds smaller print and turned lines")


class Input(BaseAppInput):
    image: File = Field(description="A page, a photo, a screenshot")
    min_score: float = Field(0.5, ge=0, le=1, description="Leave out lines that were read with less confidence")
    annotate: bool = Field(True, description="Also draw the lines that were found")


class Line(BaseModel):
    text: str
    score: float
    box: list[list[float]] = Field(description="The four corners in pixels, clockwise from the top left")


class Output(BaseAppOutput):
    text: str
    lines: list[Line]
    annotated: File | None = None
    seconds: float


class App(BaseApp):
    def setup(self, config: Setup) -> None:
        began = time.perf_counter()
        self.accurate = config.detail == "accurate"
        self.engine = RapidOCR(det_limit_side_len=DETECTOR_SIDE[config.detail])
        self.logger.info("models loaded in %.1f s, detail %s", time.perf_counter() - began, config.detail)

    def run(self, input_data: Input) -> Iterator[Output]:
        began = time.perf_counter()
        image = self._read_image(input_data.image)
        boxes = self._find_lines(image)
        self.logger.info("%d x %d pixels, %d lines found", image.shape[1], image.shape[0], len(boxes))
        self.report_progress(0, len(boxes), "reading")
        lines: list[Line] = []
        crops = self.engine.get_crop_img_list(image, boxes)
        for index, (box, crop) in enumerate(zip(boxes, crops, strict=True), start=1):
            line = self._read_line(box, crop)
            if line and line.score >= input_data.min_score:
                lines.append(line)
            self.report_progress(index, len(boxes), "reading")
            yield self._output(lines, began)
        annotated = self._annotate(image, lines) if input_data.annotate else None
        yield self._output(lines, began, annotated)

    def _read_image(self, file: File) -> Any:
        image = cv2.imdecode(np.fromfile(str(file.path), np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError(f"{file.filename} is not an image that can be read")
        return image

    def _find_lines(self, image: Any) -> list[Any]:
        boxes, _ = self.engine(image, use_det=True, use_cls=False, use_rec=False)
        return [np.array(box, np.float32) for box in boxes or []]

    def _read_line(self, box: Any, crop: Any) -> Line | None:
        text, score = self._recognise(crop)
        if self.accurate and score < SURE:
            # Print that stands on its head reads badly, and well when it is turned.
            text, score = max((text, score), self._recognise(np.rot90(crop, 2)), key=lambda found: found[1])
        return Line(text=text, score=round(score, 3), box=box.round(1).tolist()) if text else None

    def _recognise(self, crop: Any) -> tuple[str, float]:
        found, _ = self.engine(crop, use_det=False, use_cls=False, use_rec=True)
        return (found[0][0].strip(), float(found[0][1])) if found else ("", 0.0)

    def _annotate(self, image: Any, lines: list[Line]) -> File:
        drawn = image.copy()
        for number, line in enumerate(lines, start=1):
            corners = np.array(line.box, np.int32)
            cv2.polylines(drawn, [corners], True, INK, 2)
            at = (int(corners[0][0]), max(int(corners[0][1]) - 4, 12))
            cv2.putText(drawn, str(number), at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, INK, 1, cv2.LINE_AA)
        path = Path(self.temp_dir) / "annotated.png"
        cv2.imwrite(str(path), drawn)
        return File.from_path(path)

    def _output(self, lines: list[Line], began: float, annotated: File | None = None) -> Output:
        return Output(
            text="\n".join(line.text for line in lines),
            lines=list(lines),
            annotated=annotated,
            seconds=round(time.perf_counter() - began, 3),
        )
