"""A real crew with a memory of its own, which is CrewAI's, kept in botwire: the model follows a script."""

from __future__ import annotations

from typing import Any

import pytest
from crewai import Agent, BaseLLM, Crew, Task
from crewai.memory import Memory as CrewMemory
from crewai.memory.analyze import (
    ConsolidationAction,
    ConsolidationPlan,
    ExtractedMemories,
    MemoryAnalysis,
    QueryAnalysis,
)
from pydantic import Field

from botwire import Memory
from botwire_crewai import BotWireStorage

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:crewai")  # it uses what it has deprecated itself

WORDS = ("coffee", "tea", "train", "plane", "porto", "rome")


def embed(texts: list[str]) -> list[list[float]]:
    """A vector for each text: which of the words are in it."""
    return [[0.1, *(float(word in text.lower()) for word in WORDS)] for text in texts]


class Analyst(BaseLLM):
    """A model that answers a task with a sentence, and analyses memories as CrewAI asks it to."""

    answer: str = ""
    plan: Any = None
    told: list[str] = Field(default_factory=list)

    def call(self, messages: Any, *_args: Any, response_model: Any = None, **_kwargs: Any) -> Any:
        """Answer in the form that is asked for."""
        self.told.append("\n".join(str(message["content"]) for message in messages))
        if response_model is ExtractedMemories:
            return ExtractedMemories(memories=[self.answer])
        if response_model is MemoryAnalysis:
            return MemoryAnalysis(suggested_scope="/drinks", categories=["preference"], importance=0.8)
        if response_model is QueryAnalysis:
            return QueryAnalysis(recall_queries=["coffee"], suggested_scopes=["/"])
        if response_model is ConsolidationPlan:
            return self.plan(self.told[-1])
        return self.answer

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        """Answer in the form that is asked for."""
        return self.call(*args, **kwargs)

    def supports_function_calling(self) -> bool:
        """So that it is asked for structured answers."""
        return True

    def get_context_window_size(self) -> int:
        """Enough."""
        return 8192


def session(url: str, namespace: str, question: str, answer: str) -> list[str]:
    """One crew with a memory is given one task. Returns what its model was told."""
    llm = Analyst(model="scripted", answer=answer)
    memory = CrewMemory(storage=BotWireStorage(namespace=namespace, url=url), llm=llm, embedder=embed)
    agent = Agent(role="barista", goal="serve", backstory="serves", llm=llm)
    task = Task(description=question, expected_output="a sentence", agent=agent)
    Crew(agents=[agent], tasks=[task], memory=memory).kickoff()
    memory.close()
    return llm.told


LATER = """
from tests.crew.test_crewai_memory import session

told = session({url!r}, {namespace!r}, "Serve Ana a coffee.", "Here it is.")
print([each for each in told if "Relevant memories" in each][-1])
"""


def test_a_crew_with_a_memory_knows_in_a_later_process_what_it_learned(url, namespace, in_a_new_process):
    session(url, namespace, "Ask Ana what she drinks.", "Ana drinks her coffee black.")
    [item] = Memory(namespace, url).items(prefix="crewai/")
    assert item.value["content"] == "Ana drinks her coffee black."
    assert item.value["categories"] == ["preference"]
    assert item.value["scope"].endswith("/drinks")
    told = in_a_new_process(LATER.format(url=url, namespace=namespace))
    assert "Ana drinks her coffee black." in told


def test_what_the_model_consolidates_replaces_the_old_memory_and_leaves_it_in_the_history(url, namespace):
    def plan(told: str) -> ConsolidationPlan:
        known = told.split("id=")[1].split(maxsplit=1)[0]
        action = ConsolidationAction(action="update", record_id=known, new_content="Coffee at ten, in Rome", reason="")
        return ConsolidationPlan(actions=[action], insert_new=False)

    storage = BotWireStorage(namespace=namespace, url=url)
    memory = CrewMemory(storage=storage, llm=Analyst(model="scripted", plan=plan), embedder=embed)
    memory.remember("Coffee at nine", scope="/a", categories=["x"], importance=0.5)
    memory.remember("The coffee moved to ten", scope="/a", categories=["x"], importance=0.5)
    [match] = memory.recall("rome", depth="shallow")
    assert match.record.content == "Coffee at ten, in Rome"
    past = Memory(namespace, url).history(f"crewai/{match.record.id}")
    assert [revision.value["content"] for revision in past] == ["Coffee at ten, in Rome", "Coffee at nine"]
    memory.close()
