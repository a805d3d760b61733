"""Scenarios for the published Python client, both colours. Runs in that client's environment; stdlib beside it.

``client.py SCENARIO CONFIG``: CONFIG is JSON with base_url, key, colour, app, folder. Prints one JSON object.
One text serves both colours: `settle` awaits what is awaitable, `each` iterates whatever iterates.
"""

import asyncio
import base64
import contextlib
import hashlib
import inspect
import json
import sys
from pathlib import Path

from inferencesh import AsyncInference, Inference, TaskStatus, UploadFileOptions
from inferencesh.client import parse_status


async def settle(value):
    return await value if inspect.isawaitable(value) else value


async def each(stream):
    if hasattr(stream, "__aiter__"):
        async for item in stream:
            yield item
    else:
        for item in stream:
            yield item


async def failure_of(make):
    """Class name and text of what *make* raises."""
    try:
        await settle(make())
    except Exception as error:
        return {"type": type(error).__name__, "text": str(error), "status_code": getattr(error, "status_code", None)}
    return None


async def run(client, config):
    done = await settle(client.run({"app": config["app"], "input": {"text": "hello interop"}}))
    again = (await settle(client.get_task(done["id"]))).data
    return {"done": done, "again": again}


async def run_without_waiting(client, config):
    started = await settle(client.run({"app": config["app"], "input": {"text": "later"}}, wait=False))
    done = await settle(client.wait_for_completion(started["id"]))
    return {"started": started, "done": done}


async def stream(client, config):
    """The steps of a stream by name; the stream's ``result`` after its end."""
    text = "a text of many steps"
    updates = await settle(client.run({"app": config["app"], "input": {"text": text, "steps": 5}}, stream=True))
    seen = [update async for update in each(updates)]
    names = [parse_status(update["status"]).name for update in seen]
    logs = [line for update in seen for line in update["logs"] or []]
    return {"names": names, "logs": logs, "last": seen[-1], "result": updates.result, "text": text}


async def stream_of_a_finished_task(client, config):
    done = await settle(client.run({"app": config["app"], "input": {"text": "over"}}))
    handle = await settle(client.stream_task(done["id"]))
    seen = [update async for update in each(handle)]
    return {"count": len(seen), "last": seen[-1]}


async def cancel(client, config):
    request = {"app": config["app"], "function": "slow", "input": {"seconds": 60}}
    updates = await settle(client.run(request, stream=True))
    task_id, seen, error = None, [], None
    try:
        async for update in each(updates):
            task_id = update["id"]
            seen.append(parse_status(update["status"]).name)
            if seen.count("RUNNING") == 1 and seen[-1] == "RUNNING":
                await settle(client.cancel(task_id))
    except RuntimeError as raised:
        error = str(raised)
    await settle(client.cancel(task_id))  # a finished task: succeeds and changes nothing
    final = (await settle(client.get_task(task_id))).data
    return {"seen": seen, "error": error, "final": final["status"]}


async def failing(client, config):
    request = {"app": config["app"], "function": "fail", "input": {"message": "no cake today"}}
    error = await failure_of(lambda: client.run(request))
    started = await settle(client.run(request, wait=False))
    waited = await failure_of(lambda: client.wait_for_completion(started["id"]))
    return {"run": error, "wait": waited}


async def refused(client, config):
    app = config["app"]
    return {
        "unknown_app": await failure_of(lambda: client.run({"app": "local/there-is-none", "input": {}})),
        "wrong_input": await failure_of(lambda: client.run({"app": app, "input": {"text": ["no", "text"]}})),
        "unknown_function": await failure_of(lambda: client.run({"app": app, "function": "nope", "input": {}})),
        "unknown_task": await failure_of(lambda: client.get_task("task_01hzzzzzzzzzzzzzzzzzzzzzzz")),
        "unknown_session": await failure_of(
            lambda: client.run({"app": app, "input": {"text": "x"}, "session": "sess_01hzzzzzzzzzzzzzzzzzzzzzzz"})
        ),
        "bad_key": await failure_of(lambda: type(client)(api_key="inf_no", base_url=config["base_url"]).get_task("x")),
    }


def contents(config):
    path = Path(config["folder"]) / "cake.txt"
    path.write_bytes(b"flour, eggs, butter\n" * 50)
    raw = bytes(range(256)) * 8
    data_uri = "data:text/plain;base64," + base64.b64encode(b"a data uri").decode()
    return path, raw, data_uri


async def upload(client, config):
    """`upload_file` from a path, bytes, base64 and a data URI; the app reads what the server serves."""
    path, raw, data_uri = contents(config)
    uploads = [
        await settle(client.upload_file(str(path))),
        await settle(client.upload_file(raw, UploadFileOptions(filename="raw.bin", content_type="application/x-raw"))),
        await settle(client.upload_file(base64.b64encode(raw).decode())),
        await settle(client.upload_file(data_uri)),
    ]
    request = {"app": config["app"], "function": "digest", "input": {"files": [file["uri"] for file in uploads]}}
    done = await settle(client.run(request))
    expected = [hashlib.sha256(content).hexdigest() for content in (path.read_bytes(), raw, raw, b"a data uri")]
    listed = (await settle(client.tasks.files(done["id"]))).data
    return {"uploads": uploads, "output": done["output"], "expected": expected, "listed": listed}


async def upload_in_input(client, config):
    """A path, a base64 string and a data URI in the input are uploaded by the client itself."""
    path, raw, data_uri = contents(config)
    files = [str(path), base64.b64encode(raw).decode(), data_uri]
    done = await settle(client.run({"app": config["app"], "function": "digest", "input": {"files": files}}))
    expected = [hashlib.sha256(content).hexdigest() for content in (path.read_bytes(), raw, b"a data uri")]
    return {"output": done["output"], "input": done["input"], "expected": expected}


async def sessions(client, config):
    """State stays with a session, another session has its own, an ended one is refused."""
    start = {"function": "count", "input": {"by": 1}}
    first = await settle(client.session(config["app"], **start))
    other = await settle(client.session(config["app"], **start))
    totals = [(await settle(first.call("count", {"by": by})))["output"] for by in (10, 100)]
    others = (await settle(other.call("count", {"by": 5})))["output"]
    info, kept = await settle(first.info()), await settle(first.keepalive())
    listed = [item["id"] for item in await settle(client.sessions.list())]
    await settle(first.end())
    request = {"app": config["app"], **start, "session": first.session_id}
    ended = await failure_of(lambda: client.run(request))
    await settle(other.end())
    ids = [first.session_id, other.session_id]
    return {
        "totals": totals,
        "others": others,
        "info": info,
        "kept": kept,
        "listed": listed,
        "ids": ids,
        "ended": ended,
    }


async def long_silence(client, config):
    """Longer than the client's idle limit (30 s) and its total limit of one asynchronous connection (60 s)."""
    done = await settle(client.run({"app": config["app"], "function": "slow", "input": {"seconds": 70}}))
    return {"done": done}


async def inferlet(client, config):
    """Messages of an inferlet, which the client shows as outputs; their numbers say which are new."""
    request = {"app": config["inferlet"], "input": {"do": "say", "messages": config["messages"]}}
    updates = await settle(client.run(request, stream=True))
    heard, last = [], None
    async for update in each(updates):
        last = update
        partial = update["output"]
        if isinstance(partial, dict) and "messages" in partial:
            heard += partial["messages"][len(heard) - partial["first"] :]
    return {"heard": heard, "last": last}


async def delete(client, config):
    done = await settle(client.run({"app": config["app"], "input": {"text": "gone soon"}}))
    await settle(client.tasks.delete(done["id"]))
    return {"after": await failure_of(lambda: client.get_task(done["id"]))}


async def main(scenario, config):
    colour = {"sync": Inference, "async": AsyncInference}[config["colour"]]
    client = colour(api_key=config["key"], base_url=config["base_url"])
    assert TaskStatus.COMPLETED == 10
    result = await globals()[scenario](client, config)
    with contextlib.suppress(AttributeError):  # only some colours have something to close
        await settle(client.close())
    print(json.dumps(result, default=str))


asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
