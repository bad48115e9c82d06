"""The same records in CrewAI's own storage and in botwire's: the same answers, in the same order."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from crewai import BaseLLM
from crewai.memory import Memory as CrewMemory
from crewai.memory import MemoryRecord

from botwire_crewai import BotWireStorage

pytest.importorskip("lancedb")
from crewai.memory.storage.lancedb_storage import LanceDBStorage  # only where LanceDB is installed

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:crewai")  # it uses what it has deprecated itself

# No scope begins with the text of another but for those below it: LanceDB compares scopes as text (`/crew/a` holds
# `/crew/ab`), botwire level by level.
SCOPES = ["/", "/crew", "/crew/alpha", "/crew/alpha/deep", "/crew/beta", "/user/ana", "/user/bob"]
CATEGORIES = ["fact", "preference", "decision"]
DIMENSION = 12


def unit(rng: random.Random) -> list[float]:
    """A vector of length 1, as embedders give them."""
    numbers = [rng.random() for _ in range(DIMENSION)]
    length = sum(number * number for number in numbers) ** 0.5
    return [number / length for number in numbers]


def made(rng: random.Random, number: int) -> MemoryRecord:
    """A record with everything."""
    start = datetime(2026, 1, 1)  # noqa: DTZ001  # as CrewAI makes them
    return MemoryRecord(
        id=f"record-{number}",
        content=f"fact number {number}",
        scope=rng.choice(SCOPES),
        categories=rng.sample(CATEGORIES, rng.randint(0, 2)),
        metadata={"by": rng.choice(["ana", "bob"]), "n": rng.randint(0, 2)},
        importance=rng.random(),
        created_at=start + timedelta(minutes=number),
        last_accessed=start,
        source=rng.choice([None, "ana"]),
        private=rng.random() < 0.2,
        embedding=unit(rng),
    )


def answers(storage: Any, rng: random.Random) -> list[Any]:
    """Everything that a storage can be asked."""
    told: list[Any] = []
    for scope in [None, *SCOPES]:
        query = unit(rng)
        told.append([each.id for each, _ in storage.search(query, scope_prefix=scope, limit=100)])
        told.append([each.id for each, _ in storage.search(query, scope_prefix=scope, limit=3)])
        filtered = [
            storage.search(query, scope_prefix=scope, limit=60, categories=["fact", "decision"]),
            storage.search(query, scope_prefix=scope, limit=60, metadata_filter={"by": "ana", "n": 1}),
        ]
        told += [[each.id for each, _ in found] for found in filtered]
        told.append([each.model_dump() for each in storage.list_records(scope, limit=7, offset=2)])
        told += [storage.count(scope), storage.list_categories(scope)]
        told += [storage.list_scopes(scope or "/"), storage.get_scope_info(scope or "/").model_dump()]
    return told


@pytest.mark.parametrize("seed", range(3))
def test_it_answers_as_crewais_own_storage(tmp_path: Path, seed: int):
    rng = random.Random(seed)
    ours, theirs = BotWireStorage(url=f"sqlite:///{tmp_path / 'm.db'}"), LanceDBStorage(path=tmp_path / "lance")
    records = [made(rng, number) for number in range(60)]
    for storage in (ours, theirs):
        storage.save(records[:50])
        storage.save(records[50:])
    changes = [
        lambda storage: storage.update(made(random.Random(1_000 + seed), 7)),
        lambda storage: storage.delete(record_ids=["record-1", "record-2", "nobody"]),
        lambda storage: storage.delete(categories=["fact"], scope_prefix="/crew/beta"),
        lambda storage: storage.delete(metadata_filter={"n": 2}, older_than=datetime(2026, 1, 1, 0, 30)),  # noqa: DTZ001
        lambda storage: storage.delete(older_than=datetime(2026, 1, 1, 0, 10)),  # noqa: DTZ001  # as CrewAI makes them
        lambda storage: storage.reset("/user/ana"),
    ]
    for change in [lambda _: None, *changes]:
        assert change(ours) == change(theirs)
        assert answers(ours, random.Random(seed)) == answers(theirs, random.Random(seed))
    assert ours.count() > 10


class NoModel(BaseLLM):
    """A model that must not be asked."""

    def call(self, *_args: Any, **_kwargs: Any) -> Any:
        """Fail."""
        raise AssertionError("the model was called")

    async def acall(self, *_args: Any, **_kwargs: Any) -> Any:
        """Fail."""
        raise AssertionError("the model was called")


def embed(texts: list[str]) -> list[list[float]]:
    """A vector for each text, always the same one."""
    return [unit(random.Random(text)) for text in texts]


def test_crewais_memory_recalls_the_same_over_both(tmp_path: Path):
    recalled = []
    for storage in (BotWireStorage(url=f"sqlite:///{tmp_path / 'm.db'}"), LanceDBStorage(path=tmp_path / "lance")):
        memory = CrewMemory(llm=NoModel(model="none"), storage=storage, embedder=embed, consolidation_threshold=1.0)
        for number in range(30):
            memory.remember(f"fact {number}", scope=SCOPES[number % 7], categories=["fact"], importance=0.5)
        questions = [(f"question {number}", scope) for number in range(10) for scope in (None, "/crew", "/user/bob")]
        recalled.append(
            [
                [match.record.content for match in memory.recall(question, scope=scope, depth="shallow", limit=8)]
                for question, scope in questions
            ]
        )
        memory.close()
    assert recalled[0] == recalled[1]
    assert all(recalled[0])


def test_a_memory_moves_in_from_crewais_own_storage(tmp_path: Path):
    rng = random.Random(5)
    ours, theirs = BotWireStorage(url=f"sqlite:///{tmp_path / 'm.db'}"), LanceDBStorage(path=tmp_path / "lance")
    theirs.save([made(rng, number) for number in range(30)])
    ours.save(theirs.list_records(limit=1_000_000))
    assert answers(ours, random.Random(6)) == answers(theirs, random.Random(6))
