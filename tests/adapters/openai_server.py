"""A small server that speaks OpenAI's wire: Assistants, Chat Completions, Responses, Conversations, all but the model.

What the model does is scripted, a turn for each of its answers, whatever API asks for it:

    with serving(calls(("recall", {"query": "coffee"})), says("Yirgacheffe")) as server:
        client = OpenAI(base_url=server.url, api_key="key")

A turn may be a function of what the model is shown. As the real API does, it refuses (400) a tool call without an
answer, an answer without a call, schemas that strict mode cannot take, and writing to a thread while a run is active.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

Fields = dict[str, Any]
NOW = 1_800_000_000


class Turn(NamedTuple):
    """What the model does next: tool calls, or a text."""

    calls: tuple[tuple[str, str], ...] = ()
    text: str = ""
    breaks: bool = False
    """Whether the stream ends in the middle, without a word."""


Script = Turn | Callable[[str], Turn]


def calls(*asked: tuple[str, Any]) -> Turn:
    """The model calls tools. Arguments that are no str are written as JSON; a str is sent as it is."""
    return Turn(tuple((name, given if isinstance(given, str) else json.dumps(given)) for name, given in asked))


def says(text: str) -> Turn:
    """The model answers."""
    return Turn(text=text)


class Refused(Exception):
    """The request is wrong."""


class OpenAIServer:
    """What was asked, and what is to be answered."""

    def __init__(self, script: tuple[Script, ...]) -> None:
        self.script = list(script)
        self.requests: list[tuple[str, Fields]] = []
        self.url = ""
        self.refused: list[str] = []
        self.lock = threading.Lock()
        self._ids = itertools.count(1)
        self.assistants: dict[str, Fields] = {}
        self.threads: dict[str, list[Fields]] = {}
        self.runs: dict[str, Fields] = {}
        self.turns: dict[str, Turn] = {}
        self.answered: dict[str, list[Fields]] = {}
        self.items: dict[str, list[Fields]] = {}  # of stored responses and of conversations

    def new(self, kind: str) -> str:
        return f"{kind}_{next(self._ids)}"

    def bodies(self, path: str) -> list[Fields]:
        """The bodies of all requests whose path ends so."""
        return [body for asked, body in self.requests if asked.endswith(path)]

    def turn(self, shown: Any) -> Turn:
        if not self.script:
            raise Refused("the script is over")
        following = self.script.pop(0)
        return following if isinstance(following, Turn) else following(json.dumps(shown, ensure_ascii=False))


@contextmanager
def serving(*script: Script) -> Iterator[OpenAIServer]:
    """A server on a free port, that ends with the block."""
    state = OpenAIServer(script)
    handler = type("Handler", (_Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: OpenAIServer

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def _answer(self, method: str) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0].removeprefix("/v1")
        try:
            body = json.loads(text or "{}")
            with self.state.lock:
                self.state.requests.append((path, body))
                _check_beta(path, self.headers.get("OpenAI-Beta"))
                answer = _route(self.state, method, path, body)
        except Refused as error:
            self.state.refused.append(str(error))
            self._send(400, {"error": {"message": str(error), "type": "invalid_request_error", "code": None}})
            return
        if isinstance(answer, list):
            self._send_events(answer)
        else:
            self._send(200, answer)

    def _send(self, status: int, answer: Fields) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("openai-poll-after-ms", "1")
        self.end_headers()
        self.wfile.write(data)

    def _send_events(self, events: list[Fields]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for event in events:
            named = f"event: {event['event']}\n" if "event" in event else ""
            self.wfile.write(f"{named}data: {json.dumps(event['data'])}\n\n".encode())
            self.wfile.flush()
        ended = "event: done\n" if events and "event" in events[-1] else ""
        self.wfile.write(f"{ended}data: [DONE]\n\n".encode())


def _route(state: OpenAIServer, method: str, path: str, body: Fields) -> Any:
    for wanted, pattern, function in _ROUTES:
        found = re.fullmatch(pattern, path)
        if found and wanted == method:
            return function(state, body, *found.groups())
    raise Refused(f"there is no {method} {path} here")


def _check_beta(path: str, header: str | None) -> None:
    if path.startswith(("/threads", "/assistants")) and header != "assistants=v2":
        raise Refused("You must provide the 'OpenAI-Beta' header to access the Assistants API")


def _check_schema(tool: Fields) -> None:
    """What strict mode asks of a function's schema."""
    schema = tool["parameters"]
    if not tool.get("strict"):
        return
    if schema.get("additionalProperties") is not False or set(schema["required"]) != set(schema["properties"]):
        raise Refused(f"Invalid schema for function {tool['name']!r}")


def _check_pairs(asked: list[str], answered: list[str]) -> None:
    if missing := set(asked) - set(answered):
        raise Refused(f"No tool output found for function call {min(missing)}")
    if foreign := set(answered) - set(asked):
        raise Refused(f"No tool call found for {min(foreign)}")


# ── Chat Completions ────────────────────────────────────────────────────────────────────────────────


def _chat(state: OpenAIServer, body: Fields) -> Any:
    for tool in body.get("tools", ()):
        _check_schema(tool["function"])
    open_calls: list[str] = []
    for message in body["messages"]:
        if message["role"] == "tool":
            if message["tool_call_id"] not in open_calls:
                raise Refused("messages with role 'tool' must follow a message with 'tool_calls'")
            open_calls.remove(message["tool_call_id"])
        elif open_calls:
            raise Refused(f"these tool_call_ids have no response messages: {open_calls}")
        open_calls += [call["id"] for call in message.get("tool_calls") or ()]
    _check_pairs(open_calls, [])
    turn = state.turn(body["messages"])
    made = [
        {"id": state.new("call"), "type": "function", "function": {"name": name, "arguments": given}}
        for name, given in turn.calls
    ]
    said: Fields = {"role": "assistant", "content": turn.text or None, "refusal": None, "annotations": []}
    if made:
        said["tool_calls"] = made
    frame = {"id": state.new("chatcmpl"), "created": NOW, "model": body["model"]}
    ending = "tool_calls" if made else "stop"
    if body.get("stream"):
        deltas = [{"role": "assistant", "content": ""}, *_chat_deltas(turn, made), *([] if turn.breaks else [{}])]
        return [
            {
                "data": frame
                | {
                    "object": "chat.completion.chunk",
                    "choices": [{"index": 0, "delta": delta, "finish_reason": None if delta else ending}],
                }
            }
            for delta in deltas
        ]
    return frame | {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": said, "finish_reason": ending, "logprobs": None}],
    }


def _chat_deltas(turn: Turn, made: list[Fields]) -> Iterator[Fields]:
    for piece in _pieces(turn.text):
        yield {"content": piece}
    for index, call in enumerate(made):
        first, *rest = _pieces(call["function"]["arguments"]) or [""]
        yield {"tool_calls": [{"index": index, **call, "function": {**call["function"], "arguments": first}}]}
        for piece in rest:
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _pieces(text: str) -> list[str]:
    return [text[at : at + 7] for at in range(0, len(text), 7)]


# ── Responses and Conversations ─────────────────────────────────────────────────────────────────────


def _new_conversation(state: OpenAIServer, body: Fields) -> Fields:
    name = state.new("conv")
    state.items[name] = list(body.get("items") or ())
    return {"id": name, "object": "conversation", "created_at": NOW, "metadata": {}}


def _responses(state: OpenAIServer, body: Fields) -> Any:
    for tool in body.get("tools", ()):
        _check_schema(tool)
    given = body["input"] if isinstance(body["input"], list) else [{"role": "user", "content": body["input"]}]
    conversation = body.get("conversation")
    before = conversation["id"] if isinstance(conversation, dict) else conversation or body.get("previous_response_id")
    if before is not None and before not in state.items:
        raise Refused(f"there is no {before!r}")
    items = [*(state.items[before] if before else ()), *given]
    _check_pairs(
        [item["call_id"] for item in items if item.get("type") == "function_call"],
        [item["call_id"] for item in items if item.get("type") == "function_call_output"],
    )
    if len(ids := [item["id"] for item in items if "id" in item]) != len(set(ids)):
        raise Refused("Duplicate item found with id")
    turn = state.turn([body.get("instructions"), *items])
    output = _response_output(state, turn)
    response = {
        "id": state.new("resp"), "object": "response", "created_at": NOW, "model": body["model"],
        "status": "completed", "output": output, "parallel_tool_calls": True, "tool_choice": "auto",
        "tools": body.get("tools", []), "instructions": body.get("instructions"), "error": None,
        "incomplete_details": None, "metadata": {}, "temperature": 1.0, "top_p": 1.0,
    }  # fmt: skip
    state.items[response["id"]] = [*items, *output]
    if conversation and before:
        state.items[before] = [*items, *output]
    events = _response_events(response)[: -1 if turn.breaks else None]
    return events if body.get("stream") else response


def _response_output(state: OpenAIServer, turn: Turn) -> list[Fields]:
    if turn.calls:
        return [
            {
                "type": "function_call", "id": state.new("fc"), "call_id": state.new("call"), "name": name,
                "arguments": given, "status": "completed",
            }
            for name, given in turn.calls
        ]  # fmt: skip
    content = [{"type": "output_text", "text": turn.text, "annotations": [], "logprobs": []}]
    return [{"type": "message", "id": state.new("msg"), "role": "assistant", "status": "completed", "content": content}]


def _response_events(response: Fields) -> list[Fields]:
    begun = response | {"output": [], "status": "in_progress"}
    events: list[Fields] = [{"type": "response.created", "response": begun}]
    for index, item in enumerate(response["output"]):
        place = {"output_index": index, "item_id": item["id"]}
        events.append({"type": "response.output_item.added", "output_index": index, "item": item})
        if item["type"] == "message":
            events += [
                {"type": "response.output_text.delta", **place, "content_index": 0, "delta": piece, "logprobs": []}
                for piece in _pieces(item["content"][0]["text"])
            ]
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    events.append({"type": "response.completed", "response": response})
    return [
        {"event": event["type"], "data": event | {"sequence_number": number}} for number, event in enumerate(events)
    ]


# ── Assistants ──────────────────────────────────────────────────────────────────────────────────────


def _new_assistant(state: OpenAIServer, body: Fields) -> Fields:
    for tool in body.get("tools", ()):
        _check_schema(tool["function"])
    name = state.new("asst")
    state.assistants[name] = {
        "id": name, "object": "assistant", "created_at": NOW, "name": None, "description": None, "metadata": {},
        "tools": [], "instructions": None, **body,
    }  # fmt: skip
    return state.assistants[name]


def _new_thread(state: OpenAIServer, body: Fields) -> Fields:
    name = state.new("thread")
    state.threads[name] = []
    for message in body.get("messages", ()):
        _new_message(state, message, name)
    return {"id": name, "object": "thread", "created_at": NOW, "metadata": {}, "tool_resources": {}}


def _thread(state: OpenAIServer, name: str) -> list[Fields]:
    if name not in state.threads:
        raise Refused(f"No thread found with id {name!r}")
    return state.threads[name]


def _check_idle(state: OpenAIServer, thread: str) -> None:
    for run in state.runs.values():
        if run["thread_id"] == thread and run["status"] in ("queued", "in_progress", "requires_action"):
            raise Refused(f"Can't add messages to {thread} while a run {run['id']} is active.")


def _new_message(state: OpenAIServer, body: Fields, thread: str) -> Fields:
    _check_idle(state, thread)
    return _message(state, thread, body["role"], body["content"])


def _message(state: OpenAIServer, thread: str, role: str, text: str, run: str | None = None) -> Fields:
    message = {
        "id": state.new("msg"), "object": "thread.message", "created_at": NOW, "thread_id": thread, "role": role,
        "status": "completed", "run_id": run, "assistant_id": None, "attachments": [], "metadata": {},
        "content": [{"type": "text", "text": {"value": text, "annotations": []}}],
    }  # fmt: skip
    _thread(state, thread).append(message)
    return message


def _messages(state: OpenAIServer, body: Fields, thread: str) -> Fields:
    newest_first = _thread(state, thread)[::-1]
    return {"object": "list", "data": newest_first, "first_id": None, "last_id": None, "has_more": False}


def _new_run(state: OpenAIServer, body: Fields, thread: str) -> Any:
    _check_idle(state, thread)
    if body["assistant_id"] not in state.assistants:
        raise Refused(f"No assistant found with id {body['assistant_id']!r}")
    assistant = state.assistants[body["assistant_id"]]
    run = {
        "id": state.new("run"), "object": "thread.run", "created_at": NOW, "thread_id": thread, "status": "queued",
        "assistant_id": assistant["id"], "model": assistant["model"], "required_action": None, "last_error": None,
        "instructions": assistant["instructions"] or "", "tools": body.get("tools") or assistant["tools"],
        "parallel_tool_calls": True, "metadata": {}, "additional_instructions": body.get("additional_instructions"),
    }  # fmt: skip
    state.runs[run["id"]] = run
    state.answered[run["id"]] = []
    state.turns[run["id"]] = _run_turn(state, run)
    return _run_events(state, run, "thread.run.created") if body.get("stream") else run


def _run_turn(state: OpenAIServer, run: Fields) -> Turn:
    seen = [run["instructions"], run["additional_instructions"], _thread(state, run["thread_id"])]
    return state.turn([*seen, state.answered[run["id"]]])


def _advance(state: OpenAIServer, run: Fields) -> None:
    """What becomes of the run in the end."""
    turn = state.turns[run["id"]]
    if turn.calls:
        made = [
            {"id": state.new("call"), "type": "function", "function": {"name": name, "arguments": given}}
            for name, given in turn.calls
        ]
        action = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": made}}
        run |= {"status": "requires_action", "required_action": action}
    else:
        _message(state, run["thread_id"], "assistant", turn.text, run["id"])
        run["status"] = "completed"


def _get_run(state: OpenAIServer, body: Fields, thread: str, name: str) -> Fields:
    run = state.runs[name]
    if run["status"] == "queued":
        run["status"] = "in_progress"
    elif run["status"] == "in_progress":
        _advance(state, run)
    return run


def _submit(state: OpenAIServer, body: Fields, thread: str, name: str) -> Any:
    run = state.runs[name]
    if run["status"] != "requires_action":
        raise Refused(f"Runs in status {run['status']!r} do not accept tool outputs.")
    made = run["required_action"]["submit_tool_outputs"]["tool_calls"]
    _check_pairs([call["id"] for call in made], [given["tool_call_id"] for given in body["tool_outputs"]])
    if any(not isinstance(given["output"], str) for given in body["tool_outputs"]):
        raise Refused("Invalid type for 'output'")
    state.answered[name] += body["tool_outputs"]
    run |= {"status": "queued", "required_action": None}
    state.turns[name] = _run_turn(state, run)
    return _run_events(state, run, "thread.run.queued") if body.get("stream") else run


def _cancel(state: OpenAIServer, body: Fields, thread: str, name: str) -> Fields:
    state.runs[name] |= {"status": "cancelled", "required_action": None}
    return state.runs[name]


def _run_events(state: OpenAIServer, run: Fields, first: str) -> list[Fields]:
    events = [{"event": first, "data": dict(run)}]
    run["status"] = "in_progress"
    events.append({"event": "thread.run.in_progress", "data": dict(run)})
    _advance(state, run)
    if run["status"] == "requires_action":
        events += _step_events(state, run)
    else:
        events += _message_events(state, run)
    return [*events, {"event": f"thread.run.{run['status']}", "data": dict(run)}]


def _step_events(state: OpenAIServer, run: Fields) -> Iterator[Fields]:
    made = run["required_action"]["submit_tool_outputs"]["tool_calls"]
    step = {
        "id": state.new("step"), "object": "thread.run.step", "created_at": NOW, "run_id": run["id"],
        "assistant_id": run["assistant_id"], "thread_id": run["thread_id"], "type": "tool_calls",
        "status": "in_progress", "step_details": {"type": "tool_calls", "tool_calls": []},
    }  # fmt: skip
    yield {"event": "thread.run.step.created", "data": step}
    for index, call in enumerate(made):
        whole = call["function"]
        begin = {**call, "index": index, "function": {"name": whole["name"], "arguments": "", "output": None}}
        more = [
            {"index": index, "type": "function", "function": {"arguments": piece}}
            for piece in _pieces(whole["arguments"])
        ]
        for delta in (begin, *more):
            details = {"type": "tool_calls", "tool_calls": [delta]}
            data = {"id": step["id"], "object": "thread.run.step.delta", "delta": {"step_details": details}}
            yield {"event": "thread.run.step.delta", "data": data}


def _message_events(state: OpenAIServer, run: Fields) -> Iterator[Fields]:
    message = state.threads[run["thread_id"]][-1]
    yield {"event": "thread.message.created", "data": message | {"content": [], "status": "in_progress"}}
    for piece in _pieces(message["content"][0]["text"]["value"]):
        content = [{"index": 0, "type": "text", "text": {"value": piece}}]
        data = {"id": message["id"], "object": "thread.message.delta", "delta": {"content": content}}
        yield {"event": "thread.message.delta", "data": data}
    yield {"event": "thread.message.completed", "data": message}


_ROUTES: list[tuple[str, str, Callable[..., Any]]] = [
    ("POST", "/chat/completions", _chat),
    ("POST", "/responses", _responses),
    ("POST", "/conversations", _new_conversation),
    ("POST", "/assistants", _new_assistant),
    ("POST", "/threads", _new_thread),
    ("POST", "/threads/([^/]+)/messages", _new_message),
    ("GET", "/threads/([^/]+)/messages", _messages),
    ("POST", "/threads/([^/]+)/runs", _new_run),
    ("GET", "/threads/([^/]+)/runs/([^/]+)", _get_run),
    ("POST", "/threads/([^/]+)/runs/([^/]+)/submit_tool_outputs", _submit),
    ("POST", "/threads/([^/]+)/runs/([^/]+)/cancel", _cancel),
]
