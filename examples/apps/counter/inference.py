"""A number that lives in the instance: within a session, calls see what the calls before them did."""

from infsh import BaseApp, BaseAppInput, BaseAppOutput
from pydantic import Field


class Increment(BaseAppInput):
    by: int = Field(1, description="May be negative")


class Nothing(BaseAppInput):
    pass


class Count(BaseAppOutput):
    value: int
    calls: int = Field(description="How many calls this instance has answered")


class App(BaseApp):
    def setup(self) -> None:
        self.value = 0
        self.calls = 0

    def increment(self, input_data: Increment) -> Count:
        """Add to the number."""
        self.value += input_data.by
        return self._answer()

    def read(self, input_data: Nothing) -> Count:
        """The number as it is."""
        return self._answer()

    def reset(self, input_data: Nothing) -> Count:
        """Begin at 0 again."""
        self.value = 0
        return self._answer()

    def _answer(self):
        self.calls += 1
        self.logger.info("value %d after %d calls", self.value, self.calls)
        return Count(value=self.value, calls=self.calls)
