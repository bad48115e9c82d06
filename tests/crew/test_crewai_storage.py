"""CrewAI's own memory, kept in botwire."""

from __future__ import annotations

import asyncio
import copy
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from crewai import BaseLLM
from crewai.memory import Memory as CrewMemory
from crewai.memory import MemoryRecord
from crewai.memory.storage import factory
from crewai.memory.storage.backend import EmbeddingDimensionMismatchError, StorageBackend

from botwire import InvalidInput, Memory, TooLarge
from botwire_crewai import BotWireStorage, register

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:crewai")  # it uses what it has deprecated itself

WORDS = ("coffee", "tea", "train", "plane", "porto", "rome")


def embed(texts: list[str]) -> list[list[float]]:
    """A vector for each text: which of the words are in it."""
    return [[0.1, *(float(word in text.lower()) for word in WORDS)] for text in texts]


def record(content: str, scope: str = "/", **more: Any) -> MemoryRecord:
    """A record with its embedding."""
    return MemoryRecord(content=content, scope=scope, **{"embedding": embed([content])[0], **more})


class NoModel(BaseLLM):
    """A model that must not be asked."""

    def call(self, *_args: Any, **_kwargs: Any) -> Any:
        """Fail."""
        raise AssertionError("the model was called")

    async def acall(self, *_args: Any, **_kwargs: Any) -> Any:
        """Fail."""
        raise AssertionError("the model was called")


def crew_memory(storage: Any) -> CrewMemory:
    """CrewAI's memory over a storage, with no model."""
    return CrewMemory(llm=NoModel(model="none"), storage=storage, embedder=embed)


@pytest.fixture
def storage(url, namespace):
    """A storage, empty."""
    return BotWireStorage(namespace=namespace, url=url)


@pytest.fixture
def no_factory(monkeypatch):
    """CrewAI as it starts: no factory is set."""
    monkeypatch.setattr(factory, "_factory", None)


LATER = """
from crewai import BaseLLM
from crewai.memory import Memory
from botwire_crewai import BotWireStorage
from tests.crew.test_crewai_storage import crew_memory

memory = crew_memory(BotWireStorage(namespace={namespace!r}, url={url!r}))
for match in memory.recall("When does the train to Porto leave?", scope="/trips", depth="shallow", limit=1):
    print(match.record.content, match.record.categories, match.record.metadata)
memory.close()
"""


def test_it_is_a_storage_backend(storage):
    assert isinstance(storage, StorageBackend)


def test_what_crewai_remembers_is_recalled_in_a_later_process(url, namespace, storage, in_a_new_process):
    memory = crew_memory(storage)
    for content in ("The train to Porto leaves at nine", "The plane to Rome is late", "Coffee is at the station"):
        memory.remember(content, scope="/trips", categories=["travel"], importance=0.5, metadata={"by": "ana"})
    memory.close()
    told = in_a_new_process(LATER.format(url=url, namespace=namespace))
    assert told.strip() == "The train to Porto leaves at nine ['travel'] {'by': 'ana'}"


def test_a_record_comes_back_as_it_was(storage):
    given = MemoryRecord(
        id="a'; -- / ü",
        content='Kaffee „schwarz“ \n 🙂 "quoted"',
        scope="crew//Alpha/",
        categories=["café", "a,b"],
        metadata={"deep": {"list": [1, 2.5, None, True]}, "a.b": "dots", "$op": 1},
        importance=0.25,
        created_at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        last_accessed=datetime(2026, 2, 3, 4, 5, 6),  # noqa: DTZ001  # as CrewAI makes them
        embedding=[0.1, -2.5, 1e-3],
        source="ana",
        private=True,
    )
    storage.save([given])
    found = storage.get_record(given.id)
    assert found.model_dump() == given.model_dump()
    assert found.embedding == pytest.approx(given.embedding, rel=1e-6)
    [(searched, score)] = storage.search(given.embedding)
    assert searched.model_dump() == given.model_dump()
    assert searched.embedding == found.embedding
    assert score == pytest.approx(1.0)
    assert storage.list_records() == [found]
    assert storage.get_record("another") is None


def test_records_are_ranked_by_cosine(storage):
    angles = [0.1, 0.5, 0.9, 1.4, 2.0, 3.0]
    storage.save([MemoryRecord(content=str(a), embedding=[5 * math.cos(a), 5 * math.sin(a)]) for a in angles])
    found = storage.search([2.0, 0.0], limit=6)
    assert [each.content for each, _ in found] == [str(a) for a in angles]
    assert [score for _, score in found] == pytest.approx([max(math.cos(a), 0.0) for a in angles], abs=1e-6)
    assert len(storage.search([2.0, 0.0], limit=2)) == 2
    assert storage.search([2.0, 0.0], limit=0) == []
    assert [each.content for each, _ in storage.search([2.0, 0.0], min_score=0.6)] == ["0.1", "0.5", "0.9"]


def test_a_search_keeps_to_its_scope_categories_and_metadata(storage):
    storage.save(
        [
            record("coffee one", "/crew/a", categories=["x"], metadata={"by": "ana"}),
            record("coffee two", "/crew/a/deep", categories=["x", "y"], metadata={"by": "bob", "n": 1}),
            record("coffee three", "/crew/ab", categories=["y"]),
            record("coffee four"),
        ]
    )

    def found(**filters: Any) -> set[str]:
        return {each.content.split()[1] for each, _ in storage.search(embed(["coffee"])[0], **filters)}

    assert found() == found(scope_prefix="/") == found(categories=[]) == {"one", "two", "three", "four"}
    assert found(scope_prefix="/crew/a") == found(scope_prefix="crew/a/") == {"one", "two"}
    assert found(scope_prefix="/nowhere") == set()
    assert found(categories=["y", "z"]) == {"two", "three"}
    assert found(metadata_filter={"by": "bob", "n": 1}) == {"two"}
    assert found(metadata_filter={"by": "bob", "n": 2}) == set()
    assert found(scope_prefix="/crew", categories=["x"], metadata_filter={"by": "ana"}) == {"one"}


def test_scopes_categories_and_counts(storage):
    day = datetime(2026, 1, 1)  # noqa: DTZ001  # as CrewAI makes them
    storage.save(
        [
            record("one", "/crew/a", categories=["x"], created_at=day),
            record("two", "/crew/a/deep/er", categories=["x", "y"], created_at=day + timedelta(days=1)),
            record("three", "/crew/ab", created_at=day + timedelta(days=2)),
            record("four", created_at=day + timedelta(days=3)),
        ]
    )
    assert storage.list_scopes() == ["/crew"]
    assert storage.list_scopes("/crew") == storage.list_scopes("crew/") == ["/crew/a", "/crew/ab"]
    assert storage.list_scopes("/crew/ab") == []
    assert storage.list_categories() == {"x": 2, "y": 1}
    assert storage.list_categories("/crew/a/deep") == {"x": 1, "y": 1}
    assert [storage.count(scope) for scope in (None, "/", "/crew/a", "/crew/a/", "/none")] == [4, 4, 2, 2, 0]
    info = storage.get_scope_info("/crew/a/")
    assert (info.path, info.record_count, info.categories) == ("/crew/a", 2, ["x", "y"])
    assert (info.oldest_record, info.newest_record) == (day, day + timedelta(days=1))
    assert info.child_scopes == ["/crew/a/deep"]
    assert storage.get_scope_info("/none").record_count == 0
    assert [each.content for each in storage.list_records()] == ["four", "three", "two", "one"]
    assert [each.content for each in storage.list_records("/crew", limit=1, offset=1)] == ["two"]
    assert storage.list_records(limit=0) == storage.list_records(offset=-1) == []


def test_deleting_takes_what_meets_every_condition(storage):
    old = datetime(2026, 1, 1, tzinfo=UTC)

    def fill() -> dict[str, MemoryRecord]:
        storage.reset()
        made = {
            "a": record("a", "/crew/a", categories=["x"], metadata={"by": "ana"}, created_at=old),
            "b": record("b", "/crew/a", categories=["y"]),
            "c": record("c", "/crew/b", categories=["x"], metadata={"by": "ana"}),
        }
        storage.save(list(made.values()))
        return made

    def left(**conditions: Any) -> str:
        before = storage.count()
        deleted = storage.delete(**conditions)
        rest = "".join(sorted(each.content for each in storage.list_records()))
        assert before - deleted == len(rest) == len(storage.search(embed(["x"])[0]))
        return rest

    made = fill()
    assert left(record_ids=[made["a"].id, "unknown"]) == "bc"
    fill()
    assert left(scope_prefix="/crew/a") == "c"
    fill()
    assert left(categories=["x"]) == "b"
    fill()
    assert left(metadata_filter={"by": "ana"}, scope_prefix="/crew/b") == "ab"
    fill()
    assert left(older_than=datetime(2026, 1, 2)) == "bc"  # noqa: DTZ001  # CrewAI's times are UTC without saying so
    made = fill()
    assert left(record_ids=[made["a"].id], categories=["y"]) == "abc"
    assert left(record_ids=[]) == left(categories=[]) == "abc"
    assert left() == ""


def test_ids_that_are_no_list_delete_nothing(storage):
    storage.save([record("a", id="a")])
    with pytest.raises(InvalidInput, match=r"record_ids takes a list: write \['a'\]"):
        storage.delete(record_ids="a")
    assert storage.count() == 1


def test_a_reset_leaves_what_others_keep_in_the_namespace(storage, url, namespace):
    memory = Memory(namespace, url)
    memory.set("coffee", "black")
    storage.save([record("one", "/a"), record("two", "/b")])
    storage.touch_records([each.id for each in storage.list_records()])
    storage.reset("/a")
    assert [each.content for each in storage.list_records()] == ["two"]
    storage.reset()
    assert memory.keys() == ["coffee"]


def test_a_record_with_a_known_id_takes_its_place(storage):
    storage.save([record("tea", id="one", created_at=datetime(2026, 1, 1, tzinfo=UTC))])
    storage.save([record("coffee", "/new", id="one")])
    assert storage.count() == 1
    [(found, _)] = storage.search(embed(["coffee"])[0], min_score=0.9)
    assert (found.content, found.scope) == ("coffee", "/new")


def test_an_update_without_an_embedding_keeps_the_one_that_is_stored(storage):
    storage.save([record("coffee", "/a", id="one")])
    storage.update(MemoryRecord.model_validate(storage.get_record("one").model_dump() | {"scope": "/b"}))
    [(found, score)] = storage.search(embed(["coffee"])[0], scope_prefix="/b")
    assert score == pytest.approx(1.0)
    assert found.embedding is not None


def test_a_record_without_an_embedding_is_kept_and_listed(storage):
    storage.save([MemoryRecord(content="", id="one"), record("coffee")])
    assert storage.count() == 2
    assert storage.get_record("one").embedding is None
    assert [each.content for each, _ in storage.search(embed(["coffee"])[0])] == ["coffee"]


def test_recalling_is_noted_and_keeps_the_records_past(storage, url, namespace):
    then = datetime(2026, 1, 1)  # noqa: DTZ001  # as CrewAI makes them
    storage.save([record("tea", id="one", last_accessed=then), record("coffee", id="two", last_accessed=then)])
    storage.update(record("green tea", id="one", last_accessed=then))
    for _ in range(40):
        storage.touch_records(["one", "unknown"])
    assert storage.get_record("one").last_accessed > then
    assert storage.get_record("two").last_accessed == then
    assert storage.get_record("unknown") is None
    past = Memory(namespace, url).history("crewai/one")
    assert [revision.value["content"] for revision in past] == ["green tea", "tea"]
    later = datetime(2030, 1, 1)  # noqa: DTZ001  # as CrewAI makes them
    storage.update(record("black tea", id="one", last_accessed=later))
    assert storage.get_record("one").last_accessed == later


def test_crewai_updates_forgets_and_resets_through_it(storage):
    memory = crew_memory(storage)
    kept = memory.remember("Coffee at nine", scope="/a", categories=["x"], importance=0.5)
    memory.remember("Tea at five", scope="/b", categories=["y"], importance=0.5)
    assert kept is not None
    memory.update(kept.id, content="A plane to Rome")
    [match, *_] = memory.recall("rome", depth="shallow")
    assert match.record.content == "A plane to Rome"
    assert memory.list_scopes() == ["/a", "/b"]
    assert memory.tree() == "/ (2 records)\n  /a (1 records)\n  /b (1 records)"
    assert memory.scope("/b").recall("tea", depth="shallow")[0].record.content == "Tea at five"
    assert memory.forget(scope="/a") == 1
    memory.reset()
    assert storage.count() == 0
    memory.close()


# ── attaching ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("no_factory")
def test_a_string_names_the_namespace_once_registered(url, namespace):
    register(url=url)
    memory = crew_memory(f"botwire:{namespace}")
    memory.remember("Coffee at nine", scope="/a", categories=["x"], importance=0.5)
    memory.close()
    assert BotWireStorage(namespace=namespace, url=url).count() == 1


@pytest.mark.usefixtures("no_factory")
def test_a_factory_that_was_there_before_goes_on_answering(url, namespace):
    mine = BotWireStorage(url="sqlite://")
    asked: list[str] = []

    def before(spec: str) -> BotWireStorage | None:
        asked.append(spec)
        return mine if spec == "mine" else None

    factory.set_memory_storage_factory(before)
    register(url="sqlite://")
    register(url=url)
    assert factory.resolve_memory_storage("mine") is mine
    assert factory.resolve_memory_storage("lancedb") is None
    found = factory.resolve_memory_storage(f"botwire:{namespace}")
    assert repr(found) == repr(BotWireStorage(namespace=namespace, url=url))
    assert asked == ["mine", "lancedb"]


@pytest.mark.usefixtures("no_factory")
def test_a_string_that_names_no_namespace_is_refused(url):
    register(url=url)
    with pytest.raises(ValueError, match="namespace is empty"):
        crew_memory("botwire:")


@pytest.mark.usefixtures("no_factory")
def test_a_place_that_is_none_is_refused_when_it_is_registered():
    with pytest.raises(InvalidInput, match="is no URL"):
        register(url="memory.db")
    assert factory._factory is None


def test_importing_sets_no_factory(in_a_new_process):
    script = "import botwire_crewai\nfrom crewai.memory.storage import factory\nprint(factory._factory)"
    assert in_a_new_process(script).strip() == "None"


def test_copies_of_a_crew_share_its_memory(storage):
    assert copy.deepcopy({"storage": storage})["storage"] is storage


def test_a_memory_that_was_given_stays_open(url, namespace):
    with Memory(namespace, url) as memory:
        BotWireStorage(memory=memory).close()
        memory.set("a", 1)
        assert memory.get("a") == 1


# ── threads and event loops ─────────────────────────────────────────────────────────────────────────


def test_threads_that_save_at_once_lose_nothing(storage):
    start = threading.Barrier(6)

    def save(number: int) -> None:
        start.wait()
        for turn in range(10):
            storage.save([record(f"coffee {number} {turn}")])
            storage.search(embed(["coffee"])[0])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(save, range(6)))
    assert len({each.content for each in storage.list_records()}) == 60


def test_it_is_awaited_in_any_event_loop(storage):
    one, two = record("coffee", "/a"), record("tea", "/b")
    asyncio.run(storage.asave([one, two]))
    found = asyncio.run(storage.asearch(embed(["coffee"])[0], scope_prefix="/a"))
    assert [(each.content, score) for each, score in found] == [("coffee", pytest.approx(1.0))]
    assert asyncio.run(storage.adelete(scope_prefix="/b")) == 1
    assert storage.count() == 1


# ── together with the rest of botwire ───────────────────────────────────────────────────────────────


def test_botwires_own_search_finds_what_a_record_says_unless_it_is_private(storage, url, namespace):
    storage.save(
        [
            record("The train leaves at nine", categories=["schedule"]),
            record("The train is delayed", private=True, source="ana"),
        ]
    )
    memory = Memory(namespace, url)
    assert [hit.text for hit in memory.search("train")] == ["The train leaves at nine"]
    assert "The train leaves at nine" in memory.context("train")


def test_it_works_over_an_encrypted_memory(url, namespace):
    encrypted = pytest.importorskip("botwire.stores.encrypted", exc_type=ImportError)
    storage = BotWireStorage(namespace=namespace, url=url, encryption_key=encrypted.generate_key())
    storage.save([record("coffee", "/a", categories=["secret"], metadata={"by": "ana"}), record("tea", "/b")])
    found = storage.search(embed(["coffee"])[0], scope_prefix="/a", metadata_filter={"by": "ana"})
    assert [each.content for each, _ in found] == ["coffee"]
    assert storage.count("/a") == 1
    assert storage.delete(scope_prefix="/b") == 1
    with pytest.raises(InvalidInput, match="encrypted"):
        BotWireStorage(namespace=namespace, url=url).list_records()


# ── bad input ───────────────────────────────────────────────────────────────────────────────────────


def test_embeddings_of_another_dimension_are_refused_and_change_nothing(storage):
    storage.save([record("coffee", id="one")])
    before = storage.get_record("one")
    for refused in (
        lambda: storage.save([record("tea", embedding=[1.0, 2.0])]),
        lambda: storage.update(record("tea", id="one", embedding=[1.0])),
        lambda: storage.search([1.0, 2.0]),
        lambda: storage.search([]),
    ):
        with pytest.raises(EmbeddingDimensionMismatchError, match="contains 7-dimensional"):
            refused()
    assert storage.get_record("one") == before
    assert storage.count() == 1


def test_embeddings_of_two_dimensions_are_not_saved_together(storage):
    with pytest.raises(EmbeddingDimensionMismatchError):
        storage.save([record("tea", embedding=[1.0, 2.0]), record("coffee", embedding=[1.0])])
    assert storage.count() == 0
    assert storage.search([1.0]) == []


@pytest.mark.parametrize("number", [math.nan, math.inf, 1e300])
def test_an_embedding_that_holds_no_number_is_refused(storage, number):
    with pytest.raises(InvalidInput, match="look at the embedder"):
        storage.save([record("tea"), record("coffee", embedding=[1.0, number])])
    assert storage.count() == 0


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"id": "a\nb"}, InvalidInput, "control character"),
        ({"id": ""}, InvalidInput, "needs an id"),
        ({"metadata": {"x": object()}}, InvalidInput, "object"),
        ({"metadata": {"x": math.nan}}, InvalidInput, "nan"),
    ],
)
def test_a_record_that_cannot_be_kept_is_refused_and_the_others_with_it(storage, fields, error, message):
    with pytest.raises(error, match=message):
        storage.save([record("tea"), record("coffee", **fields)])
    assert storage.count() == 0


def test_a_record_that_is_too_large_is_refused(storage):
    with pytest.raises(TooLarge):
        storage.save([record("tea"), record("coffee " * 200_000)])
    assert storage.count() == 0


def test_more_records_than_one_request_carries_are_saved(storage):
    storage.save([record(f"coffee {number}", metadata={"padding": "x" * 20_000}) for number in range(900)])
    assert storage.count() == 900
    assert storage.delete() == 900


@pytest.mark.parametrize("value", ["a text", {"content": 1}, {"content": "x", "path": "/", "importance": 7}])
def test_what_something_else_wrote_among_the_records_is_named(storage, url, namespace, value):
    Memory(namespace, url).set("crewai/foreign", value)
    for asking in (lambda: storage.get_record("foreign"), storage.list_records):
        with pytest.raises(InvalidInput, match=r"'crewai/foreign' in 'test-\d+' holds no memory of CrewAI's"):
            asking()
    assert storage.delete(record_ids=["foreign"]) == 1
