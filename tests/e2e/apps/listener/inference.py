"""Collects the messages of its inbox until one says stop."""

from infsh import BaseApp, BaseAppInput, BaseAppOutput


class Input(BaseAppInput):
    pass


class Output(BaseAppOutput):
    heard: list[str]
    attempt: int


class App(BaseApp):
    def listen(self, app_input: Input) -> Output:
        heard: list[str] = []
        while not heard or heard[-1] != "stop":
            item = self.context.inbox.get(timeout=30)
            heard.append(item["content"])
            print(f"heard {item['content']}", flush=True)
        return Output(heard=heard, attempt=self.context.attempt)
