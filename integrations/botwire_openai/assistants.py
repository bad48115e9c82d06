"""The Assistants API: runs that stop at `requires_action` until every tool call is answered.

OpenAI shut it down on 2026-08-26; servers that are compatible with it still speak it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .toolset import MAX_ROUNDS, MemoryTools, circling, with_context

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI
    from openai.types.beta.threads import RequiredActionFunctionToolCall, Run
    from openai.types.beta.threads.run_submit_tool_outputs_params import ToolOutput


def run_assistant(
    client: OpenAI,
    memory_tools: MemoryTools,
    *,
    thread_id: str,
    assistant_id: str,
    about: str | None = None,
    max_rounds: int = MAX_ROUNDS,
    **params: Any,
) -> Run:
    """Run an assistant on a thread until it has answered, tool calls and all.

    Args:
        client: an `OpenAI` client.
        memory_tools: what runs the tools. The assistant knows them if it was made with
            `tools=memory_tools.assistants`, or if they are given here as `tools=`.
        thread_id: the thread.
        assistant_id: the assistant.
        about: what the user says, for instance: what is remembered about it goes into `additional_instructions`.
        max_rounds: after so many rounds of tool calls the run is cancelled, and `BotWireError` raised.
        params: what else `client.beta.threads.runs.create_and_poll` takes.

    Returns the run in its last state: `.status` says whether it was completed.

    """
    pace = _pace(params)
    runs: Any = client.beta.threads.runs  # Any: its methods are marked deprecated
    wanted = _with_instructions(params, memory_tools.context(about))
    run = runs.create_and_poll(thread_id=thread_id, assistant_id=assistant_id, **wanted)
    return finish_run(client, memory_tools, run, max_rounds=max_rounds, **pace)


def finish_run(
    client: OpenAI, memory_tools: MemoryTools, run: Run, *, max_rounds: int = MAX_ROUNDS, **pace: Any
) -> Run:
    """Answer the tool calls of a run, wherever it comes from, until it makes no more. Returns its last state.

    A run whose answers were never sent, because the store was away for instance, is taken up again so.
    """
    runs: Any = client.beta.threads.runs  # Any: its methods are marked deprecated
    for _ in range(max_rounds):
        if not asked_by(run):
            return run
        answers = outputs(memory_tools, run)
        run = runs.submit_tool_outputs_and_poll(run_id=run.id, thread_id=run.thread_id, tool_outputs=answers, **pace)
    if not asked_by(run):
        return run
    runs.cancel(run.id, thread_id=run.thread_id)  # or nobody could write to the thread until the run expires
    raise circling(max_rounds)


async def arun_assistant(
    client: AsyncOpenAI,
    memory_tools: MemoryTools,
    *,
    thread_id: str,
    assistant_id: str,
    about: str | None = None,
    max_rounds: int = MAX_ROUNDS,
    **params: Any,
) -> Run:
    """As `run_assistant`, with an `AsyncOpenAI` client."""
    pace = _pace(params)
    runs: Any = client.beta.threads.runs  # Any: its methods are marked deprecated
    wanted = _with_instructions(params, await memory_tools.acontext(about))
    run = await runs.create_and_poll(thread_id=thread_id, assistant_id=assistant_id, **wanted)
    return await afinish_run(client, memory_tools, run, max_rounds=max_rounds, **pace)


async def afinish_run(
    client: AsyncOpenAI, memory_tools: MemoryTools, run: Run, *, max_rounds: int = MAX_ROUNDS, **pace: Any
) -> Run:
    """As `finish_run`, with an `AsyncOpenAI` client."""
    runs: Any = client.beta.threads.runs  # Any: its methods are marked deprecated
    for _ in range(max_rounds):
        if not asked_by(run):
            return run
        answers = await aoutputs(memory_tools, run)
        run = await runs.submit_tool_outputs_and_poll(
            run_id=run.id, thread_id=run.thread_id, tool_outputs=answers, **pace
        )
    if not asked_by(run):
        return run
    await runs.cancel(run.id, thread_id=run.thread_id)
    raise circling(max_rounds)


def asked_by(run: Run) -> list[RequiredActionFunctionToolCall]:
    """The tool calls that a run waits for."""
    if run.status != "requires_action" or run.required_action is None:
        return []
    return run.required_action.submit_tool_outputs.tool_calls


def outputs(memory_tools: MemoryTools, run: Run) -> list[ToolOutput]:
    """The answers to all tool calls of a run: the API takes all of them or none."""
    return [
        {"tool_call_id": call.id, "output": memory_tools.call(call.function.name, call.function.arguments)}
        for call in asked_by(run)
    ]


async def aoutputs(memory_tools: MemoryTools, run: Run) -> list[ToolOutput]:
    """As `outputs`, for an event loop: one call after the other, for the second may read what the first has written."""
    return [
        {"tool_call_id": call.id, "output": await memory_tools.acall(call.function.name, call.function.arguments)}
        for call in asked_by(run)
    ]


def _pace(params: dict[str, Any]) -> dict[str, Any]:
    return {name: params[name] for name in ("poll_interval_ms", "timeout") if name in params}


def _with_instructions(params: dict[str, Any], block: str) -> dict[str, Any]:
    if not block:
        return params
    return params | {"additional_instructions": with_context(params.get("additional_instructions"), block)}
