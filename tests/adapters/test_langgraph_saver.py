"""`BotWireSaver`, as a checkpointer: LangGraph's own conformance suite, and what that leaves out."""

from __future__ import annotations

import asyncio
import base64
import itertools
from operator import add
from typing import Annotated, Any, TypedDict

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt

from botwire import InvalidInput, Memory, StoreCorrupt, TooLarge
from botwire.ops import Get
from botwire.stores.encrypted import generate_key
from botwire.stores.sqlite import SQLiteStore
from botwire_langgraph import BotWireSaver
from botwire_langgraph.checkpoints import THREAD_BYTES
from botwire_langgraph.naming import short
from botwire_langgraph.parts import PART_BYTES, read
from botwire_langgraph.together import together


@pytest.fixture
def saver(url, namespace):
    return BotWireSaver(namespace=namespace, url=url)


def thread(name: str, **more: str) -> Any:
    return {"configurable": {"thread_id": name, "checkpoint_ns": "", **more}}


def checkpoint(number: int, **values: Any) -> Any:
    """A checkpoint whose id says which one it is."""
    made = empty_checkpoint()
    made["id"] = f"{number:08}-0000-6000-8000-000000000000"
    made["channel_values"] = values
    made["channel_versions"] = dict.fromkeys(values, f"{number:032}.0")
    return made


def save(saver: Any, name: str, count: int, **metadata: Any) -> list[Any]:
    """Some checkpoints, each the child of the one before."""
    configs, config = [], thread(name)
    for number in range(count):
        made = checkpoint(number, n=number)
        config = saver.put(config, made, {"step": number, **metadata}, made["channel_versions"])
        configs.append(config)
    return configs


def ids(tuples: Any) -> list[int]:
    return [int(each.checkpoint["id"][:8]) for each in tuples]


# ── conformance ──


@pytest.mark.parametrize("hide_keys", [False, True])
async def test_it_passes_langgraphs_conformance_suite_in_full(url, namespace, hide_keys):
    numbers = itertools.count()
    key = generate_key() if hide_keys else None

    @checkpointer_test(name="botwire")
    async def fresh():
        yield BotWireSaver(namespace=f"{namespace}-{next(numbers)}", url=url, encryption_key=key, hide_keys=hide_keys)

    report = await validate(fresh)
    failures = [failure for result in report.results.values() for failure in result.failures]
    assert failures == []
    assert report.conformance_level() == "FULL"
    assert {name for name, result in report.results.items() if result.passed} == {
        "put", "put_writes", "get_tuple", "list", "delete_thread", "delete_for_runs", "copy_thread", "prune",
    }  # fmt: skip


# ── what is kept, and how ──


def everything(saver: BotWireSaver) -> list[Any]:
    return list(saver._memory.items(subtree=True))


def test_checkpoints_keep_no_history_and_are_never_found_by_search(saver):
    for _ in range(2):
        config = saver.put(thread("1"), checkpoint(0, espresso="a secret"), {"run_id": "espresso"}, {"espresso": 0})
        saver.put_writes(config, [("espresso", "a secret"), (ERROR, "a secret")], "espresso")
    memory = saver._memory
    assert memory.search("espresso secret", subtree=True) == []
    items = everything(saver)
    assert len(items) == 4
    for item in items:
        assert len(Memory(item.namespace, store=memory._opened()).history(item.key)) == 1


def test_a_large_state_is_kept_whole_and_in_parts(saver):
    large = {"bytes": bytes(range(256)) * 12_000, "text": "ä" * 3 * PART_BYTES, "small": 1}
    made = checkpoint(0, **large)
    config = saver.put(thread("1"), made, {"note": "x" * (PART_BYTES + 1)}, made["channel_versions"])
    saver.put_writes(config, [("text", "y" * 2 * PART_BYTES)], "task")
    found = saver.get_tuple(config)
    assert found.checkpoint["channel_values"] == large
    assert found.metadata["note"] == "x" * (PART_BYTES + 1)
    assert found.pending_writes == [("task", "text", "y" * 2 * PART_BYTES)]
    assert asyncio.run(saver.aget_tuple(thread("1"))) == found
    saver.copy_thread("1", "2")
    assert saver.get_tuple(thread("2")).checkpoint == found.checkpoint
    saver.delete_thread("1")
    assert saver.get_tuple(thread("2")).checkpoint == found.checkpoint
    saver.prune(["2"], strategy="delete")
    assert everything(saver) == []


def test_a_state_larger_than_one_request_goes_to_a_server_in_several(server_url, namespace):
    saver: Any = BotWireSaver(namespace=namespace, url=server_url)
    made = checkpoint(0, blob=b"\x00\xff" * 12_000_000)
    saver.put(thread("1"), made, {}, made["channel_versions"])
    assert saver.get_tuple(thread("1")).checkpoint["channel_values"] == made["channel_values"]


def test_a_value_that_does_not_change_is_stored_once(saver):
    first = checkpoint(0, big="x" * 300_000, n=0)
    config = saver.put(thread("1"), first, {}, first["channel_versions"])
    for number in range(1, 11):
        made = checkpoint(number, big="x" * 300_000, n=number)
        made["channel_versions"]["big"] = first["channel_versions"]["big"]
        config = saver.put(config, made, {}, {"n": made["channel_versions"]["n"]})
    assert sum(len(bytes(item.raw)) for item in everything(saver)) < 420_000
    assert all(each.checkpoint["channel_values"]["big"] == "x" * 300_000 for each in saver.list(thread("1")))


def test_a_first_checkpoint_is_kept_whole_whatever_is_said_to_be_new(saver):
    moved_in = checkpoint(3, text="from another saver", n=1)
    config = saver.put(thread("1"), moved_in, {}, {})
    assert saver.get_tuple(config).checkpoint == moved_in


def test_versions_sort_as_text_and_never_repeat(saver):
    versions = [saver.get_next_version(None, None)]
    for _ in range(20):
        versions.append(saver.get_next_version(versions[-1], None))
    assert versions == sorted(set(versions))
    assert saver.get_next_version(versions[0], None) != saver.get_next_version(versions[0], None)
    assert saver.get_next_version(3, None) > saver.get_next_version(2, None)


class Cipher:
    """What LangGraph's encrypting serializer asks for."""

    def __init__(self) -> None:
        self.cipher = AESGCM(b"0123456789abcdef")

    def encrypt(self, plaintext):
        return "aes", b"nonce-of-12b" + self.cipher.encrypt(b"nonce-of-12b", plaintext, None)

    def decrypt(self, name, ciphertext):
        return self.cipher.decrypt(ciphertext[:12], ciphertext[12:], None)


def test_a_serializer_of_ones_own_sees_everything_that_is_kept(url, namespace):
    saver: Any = BotWireSaver(namespace=namespace, url=url, serde=EncryptedSerializer(Cipher()))
    config = saver.put(thread("1"), checkpoint(0, text="plain as day"), {"why": "plain"}, {"text": 0})
    saver.put_writes(config, [("text", "plain too")], "task")
    found = saver.get_tuple(config)
    assert found.checkpoint["channel_values"] == {"text": "plain as day"}
    assert found.pending_writes == [("task", "text", "plain too")]
    kept = [part for item in everything(saver) for part in find_bytes(item.value)]
    assert len(kept) == 3
    assert not any(b"plain" in part for part in kept)


def find_bytes(value: Any) -> list[bytes]:
    """What is kept as base64."""
    if isinstance(value, dict):
        own = [base64.b64decode(value["data"])] if "data" in value else []
        return own + [part for each in value.values() for part in find_bytes(each)]
    return []


def test_threads_with_any_name_are_apart(saver):
    names = ["1", "10", "1/2", "1%2F2", "ü" * 200, "ü" * 200 + "x", "a\x00b", "langgraph", " "]
    for name in names:
        save(saver, name, 1)
        saver.put(thread(name, checkpoint_ns="sub:1|x/y" * 40), checkpoint(5, n=name), {}, {"n": 5})
    for name in names:
        assert saver.get_tuple(thread(name)).config["configurable"]["thread_id"] == name
        found = saver.get_tuple(thread(name, checkpoint_ns="sub:1|x/y" * 40))
        assert found.checkpoint["channel_values"] == {"n": name}
    saver.delete_thread("1")
    assert [name for name in names if saver.get_tuple(thread(name)) is None] == ["1"]
    listed = {each.config["configurable"]["thread_id"] for each in saver.list(None)}
    assert listed == set(names[1:])


@given(st.text(), st.text())
def test_shortened_names_stay_apart_and_fit(left, right):
    left, right = left * 40, right * 40
    assert (short(left, THREAD_BYTES) == short(right, THREAD_BYTES)) == (left == right)
    assert len(short(left, THREAD_BYTES).encode()) <= THREAD_BYTES


# ── writes ──


def test_what_a_task_wrote_first_stays_but_errors_and_interrupts_are_replaced(saver):
    [config] = save(saver, "1", 1)
    saver.put_writes(config, [("a", 1), (INTERRUPT, "first")], "task")
    saver.put_writes(config, [("a", 2), ("b", 3), (INTERRUPT, "second")], "task")
    written = saver.get_tuple(config).pending_writes
    assert sorted(written) == [("task", INTERRUPT, "second"), ("task", "a", 1), ("task", "b", 3)]


def test_writes_come_in_the_order_of_their_paths_then_tasks_then_numbers(saver):
    [config] = save(saver, "1", 1)
    saver.put_writes(config, [("c", number) for number in range(12)], "b", "~1")
    saver.put_writes(config, [("c", "z")], "a", "~2")
    saver.put_writes(config, [("c", "first")], "z", "")
    values = [value for _, _, value in saver.get_tuple(config).pending_writes]
    assert values == ["first", *range(12), "z"]


def test_many_writes_come_back(saver):
    [config] = save(saver, "1", 1)
    saver.put_writes(config, [("c", number) for number in range(1_200)], "task")
    assert [value for _, _, value in saver.get_tuple(config).pending_writes] == list(range(1_200))


# ── lists ──


def test_a_list_is_newest_first_and_ends_where_it_is_told_to(saver):
    configs = save(saver, "1", 50)
    save(saver, "2", 3)
    assert ids(saver.list(thread("1"))) == list(range(49, -1, -1))
    assert ids(saver.list(thread("1"), limit=30)) == list(range(49, 19, -1))
    assert ids(saver.list(thread("1"), limit=0)) == []
    assert ids(saver.list(thread("1"), before=configs[10])) == list(range(9, -1, -1))
    assert ids(saver.list(thread("1"), before=configs[10], limit=2)) == [9, 8]
    assert ids(saver.list(thread("1"), filter={"step": 7})) == [7]
    assert ids(saver.list(thread("1"), filter={"step": 7}, before=configs[7])) == []
    assert ids(saver.list(configs[5])) == [5]
    assert ids(saver.list(thread("3"))) == []
    assert ids(saver.list({"configurable": {"thread_id": "1"}}, before=configs[3])) == [2, 1, 0]
    assert len(list(saver.list(None))) == 53
    assert len(list(saver.list(None, limit=4))) == 4
    assert len(list(saver.list(None, filter={"step": 2}))) == 2


def test_a_list_without_a_graph_has_those_of_subgraphs_too(saver):
    save(saver, "1", 2)
    saver.put(thread("1", checkpoint_ns="sub:1"), checkpoint(7, n=1), {}, {"n": 7})
    assert ids(saver.list({"configurable": {"thread_id": "1"}})) == [7, 1, 0]
    assert ids(saver.list(thread("1"))) == [1, 0]
    assert ids(saver.list(thread("1", checkpoint_ns="sub:1"))) == [7]


class Counting:
    """A store that notes how many items it has been asked for; it asks a real one."""

    def __init__(self, store: SQLiteStore) -> None:
        self.store = store
        self.read = 0

    def execute(self, ops, *, request_id=None):
        answers = self.store.execute(ops, request_id=request_id)
        self.read += sum(len(answer.items) if hasattr(answer, "items") else 1 for answer in answers)
        return answers

    def wait(self, *arguments, **more):
        return self.store.wait(*arguments, **more)

    def close(self):
        self.store.close()


def test_a_list_reads_a_few_checkpoints_at_a_time(tmp_path):
    store = Counting(SQLiteStore(str(tmp_path / "m.db"), durability="relaxed"))
    saver = BotWireSaver(memory=Memory("c", store=store))
    configs = save(saver, "1", 300)
    for before in (None, configs[150]):
        store.read = 0
        next(saver.list(thread("1"), before=before))
        assert store.read < 100
        store.read = 0
        assert len(list(saver.list(thread("1"), before=before, limit=2))) == 2
        assert store.read < 10


async def test_the_async_list_is_the_same(saver):
    configs = save(saver, "1", 30)
    found = [each async for each in saver.alist(thread("1"), before=configs[25], limit=22)]
    assert found == list(saver.list(thread("1"), before=configs[25], limit=22))
    assert len(found) == 22


# ── more than one answer holds ──


def reading(*keys: str) -> Any:
    """A flow that reads some keys, then again."""
    first = yield from read([Get("n", key) for key in keys])
    second = yield from read([Get("n", key) for key in keys])
    return first, second


def run(flow: Any, most: int) -> Any:
    """Answer with the keys asked for, but to no more than so many at once."""
    try:
        asked = next(flow)
        while True:
            too_many = len(asked) > most
            asked = flow.throw(TooLarge("too much")) if too_many else flow.send([op.key for op in asked])
    except StopIteration as stop:
        return stop.value


@pytest.mark.parametrize("most", [1, 2, 3, 6])
def test_reads_that_are_too_large_together_are_made_apart(most):
    wanted = [["a"], ["b", "c", "d"], [], ["e", "f"]]
    answers = run(together([reading(*keys) for keys in wanted]), most)
    assert answers == [(each, each) for each in wanted]


def test_a_read_that_is_too_large_alone_is_an_error():
    with pytest.raises(TooLarge):
        run(together([reading("a"), reading("b")]), 0)


# ── bad input ──


@pytest.mark.parametrize("config", [{}, {"configurable": {}}, {"configurable": {"thread_id": ""}}])
def test_a_config_without_a_thread_is_refused(saver, config):
    for call in (
        lambda: saver.get_tuple(config),
        lambda: saver.put(config, checkpoint(0), {}, {}),
        lambda: saver.put_writes(config, [("a", 1)], "task"),
        lambda: list(saver.list(config)),
    ):
        with pytest.raises(InvalidInput, match="thread_id"):
            call()


def test_writes_without_a_checkpoint_and_unknown_strategies_are_refused(saver):
    with pytest.raises(InvalidInput, match="checkpoint_id"):
        saver.put_writes(thread("1"), [("a", 1)], "task")
    with pytest.raises(InvalidInput, match="keep_latest"):
        saver.prune(["1"], strategy="keep_some")


def test_a_state_that_cannot_be_serialized_leaves_nothing_behind(saver):
    configs = save(saver, "1", 1)
    made = checkpoint(1, good="x" * 1_000, bad=iter([]))
    with pytest.raises(TypeError):
        saver.put(configs[0], made, {}, made["channel_versions"])
    assert ids(saver.list(thread("1"))) == [0]
    assert len(everything(saver)) == 2


def test_a_state_that_has_lost_a_value_is_an_error_never_half_a_state(saver):
    [config] = save(saver, "1", 1)
    [place] = [item for item in everything(saver) if item.key.startswith("v/")]
    Memory(place.namespace, store=saver._memory._opened()).delete(place.key)
    with pytest.raises(StoreCorrupt, match="missing"):
        saver.get_tuple(config)


def test_something_else_under_the_key_of_a_checkpoint_is_an_error(saver):
    [config] = save(saver, "1", 1)
    [place] = [item for item in everything(saver) if item.key.startswith("c/")]
    Memory(place.namespace, store=saver._memory._opened()).set(place.key, "hello")
    with pytest.raises(InvalidInput, match="is no Head"):
        saver.get_tuple(config)


# ── graphs ──


class State(TypedDict):
    log: Annotated[list[str], add]


def chain(saver: Any, **options: Any) -> Any:
    """Three nodes in a row."""
    builder = StateGraph(State)
    for name in ("a", "b", "c"):
        builder.add_node(name, lambda state, name=name: {"log": [name]})
    builder.add_edge(START, "a").add_edge("a", "b").add_edge("b", "c").add_edge("c", END)
    return builder.compile(checkpointer=saver, **options)


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_thread_goes_on_where_it_was(saver, durability):
    graph = chain(saver)
    graph.invoke({"log": ["1"]}, thread("t"), durability=durability)
    graph.invoke({"log": ["2"]}, thread("t"), durability=durability)
    assert graph.get_state(thread("t")).values == {"log": ["1", "a", "b", "c", "2", "a", "b", "c"]}
    assert graph.get_state(thread("other")).values == {}


async def test_a_thread_begun_synchronously_goes_on_in_an_event_loop(saver):
    graph = chain(saver, interrupt_before=["b"])
    assert await asyncio.to_thread(graph.invoke, {"log": ["1"]}, thread("t")) == {"log": ["1", "a"]}
    assert (await graph.aget_state(thread("t"))).next == ("b",)
    assert await graph.ainvoke(None, thread("t")) == {"log": ["1", "a", "b", "c"]}
    history = [each.values async for each in graph.aget_state_history(thread("t"))]
    assert history == [
        each.values for each in await asyncio.to_thread(lambda: list(graph.get_state_history(thread("t"))))
    ]


def test_time_travel_replays_and_branches_from_an_earlier_checkpoint(saver):
    graph = chain(saver)
    graph.invoke({"log": ["1"]}, thread("t"))
    after_a = next(each for each in graph.get_state_history(thread("t")) if each.next == ("b",))
    assert graph.invoke(None, after_a.config) == {"log": ["1", "a", "b", "c"]}
    branch = graph.update_state(after_a.config, {"log": ["changed"]})
    assert graph.invoke(None, branch) == {"log": ["1", "a", "changed", "b", "c"]}
    assert graph.get_state(after_a.config).values == {"log": ["1", "a"]}
    sources = {each.metadata["source"] for each in graph.get_state_history(thread("t"))}
    assert {"input", "loop", "update"} <= sources


def asking(saver: Any) -> Any:
    """A subgraph that asks a human, inside a graph."""

    def ask(state: State):
        return {"log": [interrupt("what?"), interrupt("and then?")]}

    inner = StateGraph(State).add_node("before", lambda state: {"log": ["before"]}).add_node("ask", ask)
    inner = inner.add_edge(START, "before").add_edge("before", "ask")
    outer = StateGraph(State).add_node("inner", inner.compile()).add_node("end", lambda state: {"log": ["end"]})
    return outer.add_edge(START, "inner").add_edge("inner", "end").compile(checkpointer=saver)


def test_an_interrupt_in_a_subgraph_is_resumed_by_another_saver(url, namespace):
    graph = asking(BotWireSaver(namespace=namespace, url=url))
    stopped = graph.invoke({"log": []}, thread("t"))
    assert [each.value for each in stopped["__interrupt__"]] == ["what?"]
    inner = graph.get_state(thread("t"), subgraphs=True).tasks[0].state
    assert inner.values == {"log": ["before"]}
    again = asking(BotWireSaver(namespace=namespace, url=url))
    stopped = again.invoke(Command(resume="this"), thread("t"))
    assert [each.value for each in stopped["__interrupt__"]] == ["and then?"]
    done = asyncio.run(again.ainvoke(Command(resume="that"), thread("t")))
    assert done["log"] == ["before", "this", "that", "end"]


def failing(saver: Any, broken: dict[str, bool]) -> Any:
    """Two nodes side by side, one of which may fail."""

    def fragile(state: State):
        if broken["now"]:
            raise RuntimeError("not yet")
        return {"log": ["fragile"]}

    def sure(state: State):
        calls.append("sure")
        return {"log": ["sure"]}

    calls: list[str] = []
    builder = StateGraph(State).add_node("sure", sure).add_node("fragile", fragile)
    builder.add_edge(START, "sure").add_edge(START, "fragile")
    graph = builder.compile(checkpointer=saver)
    return graph, calls


def test_what_succeeded_beside_a_failure_is_not_run_again(url, namespace):
    broken = {"now": True}
    graph, calls = failing(BotWireSaver(namespace=namespace, url=url), broken)
    with pytest.raises(RuntimeError, match="not yet"):
        graph.invoke({"log": []}, thread("t"))
    broken["now"] = False
    again, more_calls = failing(BotWireSaver(namespace=namespace, url=url), broken)
    assert sorted(again.invoke(None, thread("t"))["log"]) == ["fragile", "sure"]
    assert (calls, more_calls) == (["sure"], [])


def test_a_fan_out_keeps_the_order_of_its_tasks(saver):
    builder = StateGraph(State)
    builder.add_node("one", lambda given: {"log": [given["name"]]})
    builder.add_conditional_edges(START, lambda state: [Send("one", {"name": f"{number:02}"}) for number in range(30)])
    graph = builder.compile(checkpointer=saver)
    assert graph.invoke({"log": []}, thread("t"))["log"] == [f"{number:02}" for number in range(30)]


# ── delta channels ──


def extended(state: list[str], writes: list[list[str]]) -> list[str]:
    return [*(state or []), *(each for write in writes for each in write)]


def delta_graph(saver: Any, every: int) -> Any:
    """A graph that stores its log now and then, and only what is new in between."""
    log = Annotated[list[str], DeltaChannel(extended, snapshot_frequency=every)]
    builder: Any = StateGraph(TypedDict("Kept", {"log": log, "n": int}))  # type: ignore[operator]  # made here
    for node in ("a", "b"):
        builder.add_node(node, lambda state, node=node: {"log": [node], "n": 1})
    builder.add_edge(START, "a").add_edge("a", "b")
    return builder.compile(checkpointer=saver)


def states(graph: Any, config: Any) -> list[Any]:
    return [(each.values.get("log"), each.next, each.metadata["step"]) for each in graph.get_state_history(config)]


@pytest.mark.parametrize("durability", ["sync", "exit"])
@pytest.mark.parametrize("every", [1, 3, 100])
def test_delta_channels_are_rebuilt_as_langgraphs_own_saver_does(saver, every, durability):
    ours, theirs = delta_graph(saver, every), delta_graph(InMemorySaver(), every)
    for graph in (ours, theirs):
        for number in range(4):
            graph.invoke({"log": [str(number)], "n": 0}, thread("t"), durability=durability)
        old = [each.config for each in graph.get_state_history(thread("t"))][-3]
        graph.invoke(None, graph.update_state(old, {"log": ["branch"]}), durability=durability)
    assert states(ours, thread("t")) == states(theirs, thread("t"))
    latest = ours.get_state(thread("t"))
    assert latest.values == asyncio.run(ours.aget_state(thread("t"))).values
    assert "branch" in latest.values["log"]


@pytest.mark.parametrize("every", [2, 5, 100])
def test_pruning_keeps_what_the_latest_checkpoint_is_rebuilt_from_out_of_sight(saver, every):
    graph = delta_graph(saver, every)
    for number in range(5):
        graph.invoke({"log": [str(number)], "n": 0}, thread("t"))
    before = graph.get_state(thread("t"))
    count = len(everything(saver))
    for _ in range(2):
        saver.prune(["t"])
        after = graph.get_state(thread("t"))
        assert (after.values, after.config, after.next) == (before.values, before.config, before.next)
        assert len(list(saver.list(thread("t")))) == 1
    assert len(everything(saver)) < count
    graph.invoke({"log": ["more"], "n": 0}, thread("t"))
    saver.copy_thread("t", "copy")
    saver.delete_thread("t")
    assert graph.get_state(thread("copy")).values["log"] == [*before.values["log"], "more", "a", "b"]
    saver.prune(["copy"])
    assert graph.get_state(thread("copy")).values["log"] == [*before.values["log"], "more", "a", "b"]
    assert "t" not in {each.config["configurable"]["thread_id"] for each in saver.list(None)}


def test_deleting_a_run_keeps_what_later_runs_are_rebuilt_from_out_of_sight(saver):
    graph = delta_graph(saver, 100)
    for run in ("one", "two", "three"):
        config = thread("t")
        config["metadata"] = {"run_id": run}
        graph.invoke({"log": [run], "n": 0}, config)
    before = graph.get_state(thread("t")).values
    asyncio.run(saver.adelete_for_runs(["one", "two"]))
    assert graph.get_state(thread("t")).values == before
    assert {each.metadata["run_id"] for each in saver.list(None)} == {"three"}
    saver.delete_for_runs(["three"])
    assert everything(saver) == []


def test_without_delta_channels_pruning_leaves_the_latest_alone(saver):
    graph = chain(saver)
    for number in range(4):
        graph.invoke({"log": [str(number)]}, thread("t"))
    before = graph.get_state(thread("t")).values
    saver.prune(["t"])
    assert graph.get_state(thread("t")).values == before
    kinds = [item.key[:2] for item in everything(saver)]
    assert kinds.count("c/") == 1
    assert not {"d/", "w/", "p/"} & set(kinds)
    assert kinds.count("v/") == len(next(saver.list(thread("t"))).checkpoint["channel_values"])


def test_pruning_takes_the_parts_of_large_values_too(saver):
    builder = StateGraph(State).add_node("a", lambda state: {"log": ["x" * 2 * PART_BYTES]}).add_edge(START, "a")
    graph = builder.compile(checkpointer=saver)
    for _ in range(3):
        graph.invoke({"log": []}, thread("t"))
    before = graph.get_state(thread("t")).values
    parts = sum(item.key.startswith("p/") for item in everything(saver))
    saver.prune(["t"])
    assert sum(item.key.startswith("p/") for item in everything(saver)) < parts / 2
    assert graph.get_state(thread("t")).values == before
