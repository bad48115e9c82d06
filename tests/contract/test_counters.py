"""Rule: the namespace row is the meter: what it says is what a recount finds, after whatever was done."""

import random
from contextlib import suppress

import pytest

from botwire import BotWireError, Memory
from botwire.stores.sqlite import SQLiteStore

MESSAGE_SIZE = (
    "length(value) + coalesce(length(CAST(id AS BLOB)), 0) + coalesce(length(CAST(role AS BLOB)), 0) "
    "+ coalesce(length(CAST(author AS BLOB)), 0)"
)
RECOUNT = {
    "items": "SELECT count(*) FROM items WHERE namespace = ? AND value IS NOT NULL",
    "messages": "SELECT count(*) FROM messages WHERE place >> 32 IN (SELECT id FROM conversations WHERE namespace = ?)",
    "conversations": "SELECT count(*) FROM conversations WHERE namespace = ?",
    "bytes": f"""SELECT (
        SELECT coalesce(sum(length(CAST(key AS BLOB)) + coalesce(length(value), 0) + coalesce(length(meta), 0)
                            + coalesce(length(past), 0)), 0) FROM items WHERE namespace = ?1
      ) + (
        SELECT coalesce(sum(length(page)), 0) FROM revisions WHERE namespace = ?1
      ) + (
        SELECT coalesce(sum({MESSAGE_SIZE}), 0)
        FROM messages WHERE place >> 32 IN (SELECT id FROM conversations WHERE namespace = ?1)
      )""",
}
COLUMNS = ("version", "items", "messages", "conversations", "bytes")


def sqlite_of(store):
    """The SQLite store inside, whatever face it has."""
    inner = getattr(store, "inner", store)
    return getattr(inner, "store", inner)


def check(store, memory):
    """What the store answers, what its row says, and what a recount finds are one."""
    said = memory.stats()
    assert said.messages == sum(len(memory.conversation(info.name).messages()) for info in memory.conversations())
    assert said.conversations == len(list(memory.conversations()))
    assert said.items == len(memory.keys())
    if not isinstance(sqlite_of(store), SQLiteStore):
        return  # a server's file is not ours to look into
    connection = sqlite_of(store)._writer
    row = connection.execute(
        f"SELECT id, {', '.join(COLUMNS)} FROM namespaces WHERE name = ?", (memory.namespace,)
    ).fetchall()
    if not row:
        assert (said.version, said.items, said.messages, said.bytes) == (0, 0, 0, 0)
        return
    [(namespace, *columns)] = row
    counted = {name: connection.execute(sql, (namespace,)).get for name, sql in RECOUNT.items()}
    stored = dict(zip(COLUMNS, columns, strict=True))
    assert {name: stored[name] for name in counted} == counted
    assert stored["bytes"] == said.bytes
    newest = connection.execute(
        "SELECT max(v) FROM (SELECT max(version) v FROM items WHERE namespace = ?1 "
        "UNION SELECT max(version) FROM changes WHERE namespace = ?1 "
        "UNION SELECT max(place & 4294967295) FROM messages "
        "WHERE place >> 32 IN (SELECT id FROM conversations WHERE namespace = ?1))",
        (namespace,),
    ).get
    assert said.version == stored["version"] >= (newest or 0)
    talks = connection.execute(
        "SELECT messages, bytes, (SELECT count(*) FROM messages WHERE place >> 32 = c.id), "
        f"(SELECT coalesce(sum({MESSAGE_SIZE}), 0) FROM messages WHERE place >> 32 = c.id) "
        "FROM conversations c WHERE namespace = ?",
        (namespace,),
    ).fetchall()
    assert all(talk[:2] == talk[2:] for talk in talks)


def some_value(random):
    return random.choice(
        [random.randrange(10**6), "x" * random.randrange(2_500), {"ü🙂": [None] * random.randrange(9)}]
    )


def act(memory, clock, random):
    """One thing that may happen to a memory."""
    key = f"ключ{random.randrange(6)}"
    talk = memory.conversation(f"t{random.randrange(3)}")
    some = {"tags": random.choice([[], ["ü"]]), "author": random.choice([None, "ann"])}
    actions = [
        lambda: memory.set(key, some_value(random), ttl=random.choice([None, None, 20]), **some),
        lambda: memory.set(key, some_value(random), history=random.random() < 0.8),
        lambda: memory.set_many({key: 1, "other": some_value(random)}),
        lambda: memory.delete(key, history=random.random() < 0.8),
        lambda: memory.touch(key, random.choice([None, 5, 50])),
        lambda: memory.undo(key),
        lambda: memory.update(key, lambda old: [old]),
        lambda: memory.pop(key, None),
        lambda: talk.extend([{"role": "user", "content": some_value(random)} for _ in range(random.randrange(4))]),
        lambda: talk.append(some_value(random), id=f"ид{random.randrange(4)}", author="ann"),
        talk.pop,
        lambda: talk.trim(keep=random.randrange(5)),
        lambda: talk.trim(older_than=clock.ago(30)),
        lambda: talk.edit(f"ид{random.randrange(4)}", some_value(random)),
        lambda: [talk.redact(message) for message in talk.messages(last=1)],
        lambda: [talk.delete(message) for message in talk.messages(last=1)],
        lambda: talk.clear() if random.random() < 0.2 else None,
        lambda: memory.clear() if random.random() < 0.1 else None,
        lambda: memory.erase(key) if random.random() < 0.3 else None,
        lambda: memory.erase(conversation=talk.name) if random.random() < 0.2 else None,
        lambda: memory.erase() if random.random() < 0.05 else None,
        lambda: clock.advance(random.choice([1, 10, 100])),
        lambda: clock.advance(days=31) if random.random() < 0.1 else None,
        lambda: failing_batch(memory, key, random),
        lambda: memory.configure(history=random.choice([0, 1, 16, 40])),
        lambda: memory.configure(messages=random.choice([0, 0, 3])),
    ]
    random.choice(actions)()


def failing_batch(memory, key, random):
    with memory.batch() as batch:
        batch.set(key, some_value(random))
        batch.delete("other")
        batch.append("t0", some_value(random))
        batch.clear()
        batch.set(key, 1, if_version=10**9)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_counters_equal_a_recount_after_anything(store, memory, clock, rounds, seed):
    dice = random.Random(seed)
    versions = [0]
    for _ in range(rounds(150 if isinstance(sqlite_of(store), SQLiteStore) else 15, 5_000)):
        with suppress(BotWireError):
            act(memory, clock, dice)
        check(store, memory)
        versions.append(memory.stats().version or versions[-1])
        assert versions[-1] >= versions[-2]


def test_counters_of_two_namespaces_do_not_mix(store, clock):
    memories = [Memory(name, store=store) for name in ("one", "one/two")]
    dice = random.Random(7)
    for _ in range(120):
        with suppress(BotWireError):
            act(dice.choice(memories), clock, dice)
    for memory in memories:
        check(store, memory)


def test_counters_survive_an_import(store, memory, clock):
    dice = random.Random(11)
    for _ in range(80):
        with suppress(BotWireError):
            act(memory, clock, dice)
    copy = Memory("copy", store=store)
    memory.copy_to(copy)
    check(store, copy)
    for _ in range(40):
        with suppress(BotWireError):
            act(copy, clock, dice)
        check(store, copy)


def test_counters_survive_reopening(new_store, clock):
    store = new_store("reopened")
    if getattr(sqlite_of(store), "path", ":memory:") == ":memory:":
        pytest.skip("a store in memory goes with its object")
    memory, dice = Memory("user-42", store=store), random.Random(3)
    for number in range(60):
        with suppress(BotWireError):
            act(memory, clock, dice)
        if number % 10 == 9:
            before = memory.stats()
            store.close()
            store = new_store("reopened")
            memory = Memory("user-42", store=store)
            assert memory.stats() == before
            check(store, memory)
