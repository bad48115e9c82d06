"""How fast search is, beside a bare FTS5 query over the same texts."""

from __future__ import annotations

import random
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

import apsw
from benchmarks import _questions as questions
from benchmarks._measure import Laps, Report, Summary, interleave, time_reads, time_writes

from botwire import Memory

LIMIT = 10
CONVERSATION = 600  # messages
HUNDRED_THOUSAND = 100_000
MILLION = 1_000_000
FOREIGN = 300_000
ROUNDS = 7
PATIENCE = 180.0  # seconds for one comparison
WRITES = 1_000
SETS = 200  # in a turn
CHANGED = 0.3  # of the words of a text that is used again

Ask = Callable[[str], object]
Message = dict[str, Any]


def fresh_memory(path: Path, embedder: Any = None, namespace: str = "benchmark") -> Memory:
    """A memory in a file that does not wait for the disk."""
    options = {} if embedder is None else {"embedder": embedder}
    return Memory(namespace, f"sqlite:///{path}", durability="relaxed", **options)


def bare_fts5(path: Path, texts: Iterable[str]) -> Callable[[str, int], list[int]]:
    """A table of texts, searched for any word of a question in the order of `bm25`; answers row numbers."""
    db = apsw.Connection(str(path))
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("CREATE VIRTUAL TABLE turn USING fts5(text, tokenize = 'unicode61')")
    with db:
        db.executemany("INSERT INTO turn (text) VALUES (?)", ((text,) for text in texts))

    def search(question: str, limit: int) -> list[int]:
        words = dict.fromkeys(re.findall(r"[^\W_]+", question.lower()))
        match = " OR ".join(f'"{word}"' for word in words)
        sql = "SELECT rowid FROM turn WHERE turn MATCH ? ORDER BY rank LIMIT ?"
        return [row for (row,) in db.execute(sql, (match, limit))] if words else []

    return search


def measure_speed(
    report: Report, conversations: Sequence[questions.Conversation], folder: Path, sections: Sequence[str]
) -> None:
    """Measure these sections of `SECTIONS`; all but the million, if none is named."""
    for name in sections or [name for name in SECTIONS if name != "million"]:
        print(f"{name} …", file=sys.stderr)
        SECTIONS[name](report, conversations, folder)


# ── the texts ───────────────────────────────────────────────────────────────────────────────────────


def many_messages(conversations: Sequence[questions.Conversation]) -> Iterator[Message]:
    """The turns again and again, each time with other words changed for some that are about as common."""
    source = random.Random(0)
    turns = [turn for conversation in conversations for turn in conversation["turns"]]
    words = [word for turn in turns for word in turn["text"].split()]
    start = datetime(2023, 1, 1, tzinfo=UTC)
    for number, turn in zip(count(), cycle(turns), strict=False):
        text = turn["text"]
        if number >= len(turns):
            text = " ".join(source.choice(words) if source.random() < CHANGED else word for word in text.split())
        yield questions.message_of({**turn, "text": text, "at": (start + timedelta(minutes=5 * number)).isoformat()})


def fill(memory: Memory, messages: Iterable[Message], name: str = "talk") -> None:
    """Append messages in conversations of 600, and let a search take them in."""
    messages = iter(messages)
    for number in count():
        some = list(islice(messages, CONVERSATION))
        if not some:
            break
        memory.conversation(f"{name}-{number}").extend(some)
    memory.search("what was written")


def sample(conversations: Sequence[questions.Conversation], size: int) -> list[str]:
    """Some of the questions, the same in every run."""
    every = [question["question"] for conversation in conversations for question in conversation["questions"]]
    return random.Random(0).sample(every, min(size, len(every)))


def asking(ask: Ask, some: Sequence[str]) -> Callable[[], Laps]:
    """A contender that asks all of some questions each turn."""
    for question in some:
        ask(question)  # warm
    return lambda: time_reads(ask, some)


def side_by_side(ours: Ask, theirs: Ask, some: Sequence[str], rounds: int = ROUNDS) -> dict[str, Summary]:
    """Our search and the bare query, in turns over the same questions."""
    contenders = {"Memory.search": asking(ours, some), "bare FTS5 OR": asking(theirs, some)}
    return interleave(contenders, rounds, 1, patience=PATIENCE)


# ── what is measured ────────────────────────────────────────────────────────────────────────────────


def small_scopes(report: Report, conversations: Sequence[questions.Conversation], folder: Path) -> None:
    """Each conversation by itself, asked its own questions."""
    places: dict[str, tuple[Ask, Ask]] = {}
    for number, conversation in enumerate(conversations):
        memory = fresh_memory(folder / f"small-{number}.db")
        fill(memory, map(questions.message_of, conversation["turns"]))
        bare = bare_fts5(folder / f"small-{number}.fts5", (turn["text"] for turn in conversation["turns"]))
        pair = (_ours(memory), _theirs(bare))
        places |= dict.fromkeys((question["question"] for question in conversation["questions"]), pair)
    some = [question for question in places if question in set(sample(conversations, 400))]
    found = side_by_side(lambda q: places[q][0](q), lambda q: places[q][1](q), some)
    sizes = sorted(len(conversation["turns"]) for conversation in conversations)
    what = f"search among {sizes[0]} to {sizes[-1]} messages"
    report.compare(what, found["Memory.search"], found["bare FTS5 OR"], "bare FTS5 OR", 3)
    report.times[what] = found


def beside_foreign(report: Report, conversations: Sequence[questions.Conversation], folder: Path) -> None:
    """One namespace alone in its file, and beside 300,000 documents of others."""
    some = sample(conversations, 100)
    mine = list(islice(many_messages(conversations), CONVERSATION))
    alone, beside = fresh_memory(folder / "alone.db"), fresh_memory(folder / "beside.db")
    foreign = many_messages(conversations)
    for number in range(FOREIGN // CONVERSATION):
        other = fresh_memory(folder / "beside.db", namespace=f"other-{number}")
        fill(other, islice(foreign, CONVERSATION))
        other.close()
    fill(alone, mine)
    fill(beside, mine)
    contenders = {"alone": asking(_ours(alone), some), "beside 300,000 others": asking(_ours(beside), some)}
    found = interleave(contenders, ROUNDS, 1, patience=PATIENCE)
    what = f"search among {CONVERSATION} messages beside {FOREIGN:,} documents of other namespaces"
    report.compare(what, found["beside 300,000 others"], found["alone"], "alone", 1.5)
    report.times[what] = found


def large_scope(
    report: Report, conversations: Sequence[questions.Conversation], folder: Path, *, size: int, at_most: float
) -> None:
    """One namespace with many documents."""
    memory = fresh_memory(folder / f"large-{size}.db")
    fill(memory, islice(many_messages(conversations), size))
    texts = (message["content"] for message in islice(many_messages(conversations), size))
    bare = bare_fts5(folder / f"large-{size}.fts5", texts)
    some = sample(conversations, 200 if size <= HUNDRED_THOUSAND else 60)
    found = side_by_side(_ours(memory), _theirs(bare), some, ROUNDS if size <= HUNDRED_THOUSAND else 5)
    what = f"search among {size:,} messages"
    report.compare(what, found["Memory.search"], found["bare FTS5 OR"], "bare FTS5 OR", at_most)
    report.times[what] = found
    memory.close()


def writes(report: Report, conversations: Sequence[questions.Conversation], folder: Path) -> None:
    """A relaxed `set` that search will find, and one that it will not."""
    memories = {"index": fresh_memory(folder / "indexed.db"), "index=False": fresh_memory(folder / "unindexed.db")}
    entries = ((f"key-{number % 1_000}", message) for number, message in enumerate(many_messages(conversations)))

    def contender(name: str, memory: Memory) -> Callable[[], Laps]:
        options: dict[str, Any] = {} if name == "index" else {"index": False}
        return lambda: time_writes(lambda key, value: memory.set(key, value, **options), list(islice(entries, SETS)))

    for name, memory in memories.items():
        contender(name, memory)()
        memory.search("what was written")  # there is an index to keep up
    contenders = {name: contender(name, memory) for name, memory in memories.items()}
    found = interleave(contenders, ROUNDS, patience=PATIENCE)
    report.compare("`set`, relaxed, with search on", found["index"], found["index=False"], "with `index=False`", 1.15)
    report.times["`set`, relaxed"] = found


def first_after_writes(report: Report, conversations: Sequence[questions.Conversation], folder: Path) -> None:
    """The first search after 1,000 writes, and the next ones."""
    memory, some = fresh_memory(folder / "first.db"), sample(conversations, 50)
    messages = many_messages(conversations)
    fill(memory, islice(messages, 10 * WRITES))
    first, clean = Summary(), Summary()
    for number in range(ROUNDS):
        for place, message in enumerate(islice(messages, WRITES)):
            memory.set(f"key-{number}-{place}", message)
        start = time.perf_counter_ns()
        memory.search(some[number], LIMIT)
        first.add([time.perf_counter_ns() - start])
        clean.add(time_reads(_ours(memory), some))
    what = f"the first search after {WRITES:,} writes"
    report.compare(what, first, clean, "a clean one", 20)
    report.times[what] = {"first": first, "clean": clean}


Section = Callable[[Report, Sequence[questions.Conversation], Path], None]
SECTIONS: dict[str, Section] = {
    "small": small_scopes,
    "foreign": beside_foreign,
    "set": writes,
    "first": first_after_writes,
    "large": partial(large_scope, size=HUNDRED_THOUSAND, at_most=1 / 4),
    "million": partial(large_scope, size=MILLION, at_most=1 / 10),
}


def _ours(memory: Memory) -> Ask:
    return lambda question: memory.search(question, LIMIT)


def _theirs(bare: Callable[[str, int], list[int]]) -> Ask:
    return lambda question: bare(question, LIMIT)
