"""Models that follow a script: with them the notebooks run without a key, and say the same each time.

A script is a list of what the model does, turn by turn: a text that it answers, or `calls("remember", key=…, value=…)`.
"""

from __future__ import annotations

import itertools
import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Call(NamedTuple):
    """A tool that the model calls."""

    tool: str
    arguments: dict[str, Any]


Turn = str | Call


def calls(tool: str, **arguments: Any) -> Call:
    """The model calls a tool."""
    return Call(tool, arguments)


def langchain_model(*script: Turn) -> Any:
    """A chat model for LangChain."""
    from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage

    class Scripted(GenericFakeChatModel):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return self

    def message(number: int, turn: Turn) -> AIMessage:
        if isinstance(turn, str):
            return AIMessage(turn)
        return AIMessage("", tool_calls=[{"name": turn.tool, "args": turn.arguments, "id": f"call-{number}"}])

    return Scripted(messages=itertools.starmap(message, enumerate(script)))


def autogen_model(*script: Turn) -> Any:
    """A model client for AutoGen."""
    from autogen_core import EVENT_LOGGER_NAME, FunctionCall
    from autogen_core.models import CreateResult, ModelInfo, RequestUsage
    from autogen_ext.models.replay import ReplayChatCompletionClient

    def result(number: int, turn: Turn) -> str | CreateResult:
        if isinstance(turn, str):
            return turn
        call = FunctionCall(id=f"call-{number}", name=turn.tool, arguments=json.dumps(turn.arguments))
        usage = RequestUsage(prompt_tokens=0, completion_tokens=0)
        return CreateResult(finish_reason="function_calls", content=[call], usage=usage, cached=False)

    logging.getLogger(EVENT_LOGGER_NAME).setLevel(logging.ERROR)  # it warns of what a script has no use for
    info = ModelInfo(vision=False, function_calling=True, json_output=True, structured_output=True, family="unknown")
    return ReplayChatCompletionClient(list(itertools.starmap(result, enumerate(script))), model_info=info)


def crewai_model(*script: Turn) -> Any:
    """An LLM for CrewAI."""
    from crewai import BaseLLM

    logging.getLogger("crewai.llms.base_llm").setLevel(logging.ERROR)  # it warns that it can but guess at tokens
    left = iter(script)

    def text(turn: Turn) -> str:
        if isinstance(turn, str):
            return f"Thought: I now know the final answer\nFinal Answer: {turn}"
        return f"Thought: I use a tool.\nAction: {turn.tool}\nAction Input: {json.dumps(turn.arguments)}"

    class Scripted(BaseLLM):
        def call(self, messages: Any, *args: Any, **kwargs: Any) -> str:
            return text(next(left))

        async def acall(self, messages: Any, *args: Any, **kwargs: Any) -> str:
            return text(next(left))

    return Scripted(model="script")


def openai_client(*script: Turn) -> Any:
    """An `OpenAI` client of a little server in this process, which speaks Responses and Assistants."""
    from openai import OpenAI

    handler = type("Handler", (_Handler,), {"state": _State(script)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return OpenAI(base_url=f"http://127.0.0.1:{server.server_port}", api_key="none")


# ── a little of OpenAI's API ────────────────────────────────────────────────────────────────────────


class _State:
    def __init__(self, script: tuple[Turn, ...]) -> None:
        self.script = iter(script)
        self.numbers = itertools.count(1)
        self.said: dict[str, list[dict[str, Any]]] = {}  # by thread
        self.runs: dict[str, dict[str, Any]] = {}

    def id(self, kind: str) -> str:
        return f"{kind}_{next(self.numbers)}"

    def answer(self, path: list[str], body: dict[str, Any]) -> dict[str, Any]:  # noqa: PLR0911  # one for each path
        """What is answered to a request."""
        match path:
            case ["responses"]:
                return self.response()
            case ["conversations"]:
                return {"id": self.id("conv"), "object": "conversation", "created_at": 0}
            case ["assistants"]:
                return {"id": self.id("asst"), "object": "assistant", "created_at": 0, "tools": [], **body}
            case ["threads"]:
                thread = self.id("thread")
                self.said[thread] = []
                return {"id": thread, "object": "thread", "created_at": 0}
            case ["threads", thread, "messages"]:
                return self.message(thread, **body) if body else {"object": "list", "data": self.said[thread][::-1]}
            case ["threads", thread, "runs"]:
                run = {"id": self.id("run"), "object": "thread.run", "created_at": 0, "thread_id": thread, **body}
                self.runs[run["id"]] = run
                return self.step(run)
            case ["threads", _, "runs", run_id]:
                return self.runs[run_id]
            case ["threads", _, "runs", run_id, "submit_tool_outputs"]:
                return self.step(self.runs[run_id])
        raise LookupError("/".join(path))

    def response(self) -> dict[str, Any]:
        turn = next(self.script)
        item: dict[str, Any] = {"id": self.id("item"), "status": "completed"}
        if isinstance(turn, str):
            text = {"type": "output_text", "text": turn, "annotations": []}
            item |= {"type": "message", "role": "assistant", "content": [text]}
        else:
            item |= {"type": "function_call", "call_id": self.id("call"), "name": turn.tool}
            item["arguments"] = json.dumps(turn.arguments)
        return {
            "id": self.id("resp"), "object": "response", "created_at": 0, "model": "script", "status": "completed",
            "output": [item], "tools": [], "tool_choice": "auto", "parallel_tool_calls": True,
        }  # fmt: skip

    def message(self, thread: str, role: str, content: str) -> dict[str, Any]:
        text = {"type": "text", "text": {"value": content, "annotations": []}}
        message = {"id": self.id("msg"), "object": "thread.message", "created_at": 0, "thread_id": thread}
        self.said[thread].append(message | {"role": role, "content": [text], "status": "completed"})
        return self.said[thread][-1]

    def step(self, run: dict[str, Any]) -> dict[str, Any]:
        """The next turn of a run."""
        turn = next(self.script)
        run |= {"status": "completed", "required_action": None}
        if isinstance(turn, str):
            self.message(run["thread_id"], "assistant", turn)
        else:
            function = {"name": turn.tool, "arguments": json.dumps(turn.arguments)}
            call = {"id": self.id("call"), "type": "function", "function": function}
            run["status"] = "requires_action"
            run["required_action"] = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": [call]}}
        return run


class _Handler(BaseHTTPRequestHandler):
    state: _State

    def _handle(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        path = self.path.partition("?")[0].strip("/").split("/")
        answer = json.dumps(self.state.answer(path, body)).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = _handle  # noqa: N815  # as http.server names them

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
