"""An answer that the client reads while it is written: generation as a stream of events."""

import json

from inferlet import Context, Event, Model, Sampler, runtime, session


def main(input: dict) -> str:
    model = Model.load(input.get("model") or runtime.models()[0])
    ctx = Context(model)
    ctx.system(input.get("system", "You are a helpful baker."))
    ctx.user(input.get("prompt", "Why does bread rise?"))

    sampler = Sampler.top_p(temperature=input.get("temperature", 0.6), top_p=0.95)
    stream = ctx.generate(sampler, max_tokens=input.get("max_tokens", 128), decode=True, reasoning=True, tool_use=True)
    answer = ""
    for event in stream:
        match event:
            case Event.Text(text=piece):
                session.send(piece)
            case Event.ThinkingDone(text=thought):
                print(f"(thought about it for {len(thought)} characters)")
            case Event.ToolCall(name=name, arguments=arguments):
                print(f"(wanted to call {name} with {json.loads(arguments)})")
            case Event.Done(text=whole):
                answer = whole
    ctx.release()
    return answer
