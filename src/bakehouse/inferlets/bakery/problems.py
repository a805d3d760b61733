"""What is wrong with a project, and where."""

from __future__ import annotations

from dataclasses import dataclass

from bakehouse.inferlets.errors import BadProgram, InferletError


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """*file* is relative to the project's folder; *line* counts from 1, and is None where none can be named."""

    file: str
    line: int | None
    text: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.text}"


class BadProject(BadProgram):
    """The project cannot be built; ``problems`` is all that was found. ``field`` is the manifest's, if it is there."""

    def __init__(self, problems: list[Problem], *, field: str | None = None) -> None:
        super().__init__("\n".join(map(str, problems)), field=field)
        self.problems = tuple(problems)


class BuildFailed(InferletError):
    """The build itself failed; ``output`` is the last that its tool said."""

    code = "build_failed"

    def __init__(self, detail: str, output: str = "") -> None:
        super().__init__(f"{detail}\n{output}".rstrip())
        self.output = output
