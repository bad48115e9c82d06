"""The command line: the real command, in processes of its own, on real files."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import apsw
import pytest

import botwire
from botwire import Memory, cli
from botwire.stores.sqlite import SQLiteStore

CODE = str(Path(botwire.__file__).parents[1])
COMMAND = [sys.executable, "-m", "botwire.cli"]

Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": CODE, "PYTHONIOENCODING": "", "LC_ALL": "C.UTF-8", **more}


def call(*arguments: str | bytes, stdin: str | bytes = b"", **more: str) -> Result:
    """Run the command; its output as text."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run([*COMMAND, *arguments], input=given, capture_output=True, env=environment(**more))
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(errors="surrogateescape"), done.stderr.decode()
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the store is."""
    return tmp_path / "memory.db"


@pytest.fixture
def process(file: Path) -> Run:
    """Run the command on that store, in a process of its own."""

    def run_(*arguments: str | bytes, stdin: str | bytes = b"", **more: str) -> Result:
        return call(*arguments, stdin=stdin, BOTWIRE_URL=f"sqlite:///{file}", **more)

    return run_


@pytest.fixture
def run(file: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Run the command on that store, in this process: it is the same command, and quicker."""
    monkeypatch.setenv("BOTWIRE_URL", f"sqlite:///{file}")

    def run_(*arguments: str, stdin: str | bytes = b"") -> Result:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main(list(arguments))
        output, errors = capfdbinary.readouterr()
        assert isinstance(ended.value.code, int)
        return subprocess.CompletedProcess(arguments, ended.value.code, output.decode(), errors.decode())

    return run_


def memory(file: Path, namespace: str = "default") -> Memory:
    return Memory(namespace, f"sqlite:///{file}")


def told(done: Result, code: int) -> str:
    """The one line that a failed command says."""
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("\n")
    return done.stderr


def fine(done: Result) -> str:
    """What a command has printed that went well and had nothing else to say."""
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# ── values ──────────────────────────────────────────────────────────────────────────────────────────

VALUES = ["1.0", '"1"', "null", '"hé ✓"', "123456789012345678901234567890", '{"b":1,"a":[2.5]}']


@pytest.mark.parametrize("value", VALUES)
def test_what_is_set_is_what_another_process_gets(process, value):
    assert fine(process("set", "key", value)) == "1\n"
    assert fine(process("get", "key")) == value + "\n"


def test_the_command_and_the_library_share_the_store(run, file):
    fine(run("-n", "acme/user-42", "set", "coffee", '"Ethiopian"', "--tag", "taste", "--tag", "drink", "--ttl", "2h"))
    item = memory(file, "acme/user-42").item("coffee")
    assert item is not None
    assert (item.value, item.tags) == ("Ethiopian", ("drink", "taste"))
    assert item.expires is not None
    assert item.expires - item.updated == 7_200_000_000
    memory(file, "acme/user-42").set("tea", {"kind": "sencha"})
    assert fine(run("-n", "acme/user-42", "get", "tea")) == '{"kind":"sencha"}\n'


def test_text_is_stored_as_a_string_and_printed_bare(run, file):
    fine(run("set", "note", "plain text, {not json", "--text"))
    assert memory(file).get("note") == "plain text, {not json"
    assert fine(run("get", "note")) == '"plain text, {not json"\n'
    assert fine(run("get", "note", "--raw")) == "plain text, {not json\n"
    fine(run("set", "five", "5", "--text"))
    assert memory(file).get("five") == "5"
    fine(run("set", "number", "5"))
    assert fine(run("get", "number", "--raw")) == "5\n"


def test_values_come_from_stdin(run, file):
    fine(run("set", "json", "-", stdin=' {"lines":\n [1, 2]} \n'))
    assert memory(file).get("json") == {"lines": [1, 2]}
    fine(run("set", "text", "-", "--text", stdin="two\nlines\n"))
    assert memory(file).get("text") == "two\nlines"
    assert fine(run("get", "text", "--raw")) == "two\nlines\n"
    fine(run("set", "big", "-", stdin=json.dumps("x" * 1_000_000)))
    assert len(memory(file).get("big")) == 1_000_000


def test_a_key_that_is_not_there_is_told_by_the_exit_code_alone(run):
    fine(run("set", "there", "null"))
    assert fine(run("get", "there")) == "null\n"
    done = run("get", "missing")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_keys_may_begin_with_a_dash_and_hold_any_script(run):
    for key in ("-n", "--", "ключ ✓", "a/b c"):
        fine(run("set", "--", key, "1"))
    assert fine(run("ls")).splitlines() == sorted(["-n", "--", "ключ ✓", "a/b c"])
    assert fine(run("get", "--", "-n")) == "1\n"


def test_compare_and_set_loses_with_1_and_changes_nothing(process, file):
    assert fine(process("set", "key", "1", "--if-version", "0")) == "1\n"
    assert "at version 1, not at 0" in told(process("set", "key", "2", "--if-version", "0"), 1)
    assert fine(process("set", "key", "3", "--if-version", "1")) == "2\n"
    told(process("delete", "key", "--if-version", "1"), 1)
    fine(process("delete", "key", "--if-version", "2"))
    assert memory(file).get("key") is None


def test_the_past_can_be_read(run, file):
    fine(run("set", "mood", '"calm"'))
    between = memory(file).history("mood")[0].at
    fine(run("set", "mood", '"excited"'))
    assert fine(run("get", "mood", "--as-of", "1")) == '"calm"\n'
    assert fine(run("get", "mood", "--as-of", between.isoformat())) == '"calm"\n'
    assert fine(run("get", "mood", "--as-of", "2100-01-01T00:00:00Z", "--raw")) == "excited\n"
    assert run("get", "mood", "--as-of", "2000-01-01T00:00:00Z").returncode == 1


def test_history_is_printed_newest_first(process):
    fine(process("set", "mood", '"calm"'))
    fine(process("delete", "mood"))
    fine(process("set", "mood", "null", "--tag", "x"))
    rows = [line.split(maxsplit=2) for line in fine(process("history", "mood")).splitlines()]
    assert [(version, value) for version, _, value in rows] == [("3", "null"), ("2", "(deleted)"), ("1", '"calm"')]
    lines = [json.loads(line) for line in fine(process("history", "mood", "--json")).splitlines()]
    assert [line["value"] for line in lines] == [None, None, "calm"]
    assert [line.get("deleted", False) for line in lines] == [False, True, False]
    assert lines[0]["tags"] == ["x"]
    assert fine(process("history", "mood", "--limit", "1")).count("\n") == 1
    assert process("history", "never").returncode == 1


def test_undo_brings_the_value_before_back_and_prints_it(run):
    fine(run("set", "plan", "1"))
    fine(run("set", "plan", "[2]"))
    fine(run("delete", "plan"))
    assert fine(run("undo", "plan")) == "[2]\n"
    assert fine(run("undo", "plan")) == "1\n"
    done = run("undo", "plan")
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing to undo" in done.stderr


def test_several_keys_are_deleted_and_the_missing_ones_named(process, file):
    memory(file).set_many({"a": 1, "b": 2, "c": 3})
    done = process("delete", "a", "x", "b", "a")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "no 'x' in 'default'\n"
    assert memory(file).keys() == ["c"]
    assert fine(process("delete", "c")) == ""


# ── listings ────────────────────────────────────────────────────────────────────────────────────────


def test_ls_lists_keys_in_order(run, file):
    memory(file).set_many({f"key-{number:04}": number for number in range(1_200)})
    memory(file).set("other", 1, ttl=3_600, tags=["t"])
    assert fine(run("ls")).splitlines() == [*(f"key-{number:04}" for number in range(1_200)), "other"]
    assert fine(run("ls", "--prefix", "key-119")).splitlines() == [f"key-119{digit}" for digit in range(10)]
    [row] = fine(run("ls", "--long", "--prefix", "other")).splitlines()
    version, updated, expires, key = row.split()
    assert (version, key) == ("1201", "other")
    assert updated < expires
    [line] = fine(run("ls", "--json", "--prefix", "other")).splitlines()
    assert json.loads(line) | {"created": "", "updated": "", "expires": ""} == {
        "name": "other", "version": 1_201, "created": "", "updated": "", "expires": "", "tags": ["t"],
    }  # fmt: skip


def test_ls_of_an_empty_namespace_prints_nothing(run, file):
    memory(file).set("key", 1)
    assert fine(run("-n", "empty", "ls")) == ""


def test_ls_lists_namespaces(run, file):
    for name in ("acme/a", "acme/b", "beta"):
        memory(file, name).set("key", 1)
    assert fine(run("ls", "--namespaces")).splitlines() == ["acme/a", "acme/b", "beta"]
    assert fine(run("-n", "acme", "ls", "--namespaces")).splitlines() == ["acme/a", "acme/b"]
    assert "1 items" in fine(run("ls", "--namespaces", "--long"))
    assert [json.loads(line)["items"] for line in fine(run("ls", "--namespaces", "--json")).splitlines()] == [1, 1, 1]


def test_ls_lists_conversations(run, file):
    memory(file).conversation("thread-1").extend([{"role": "user", "content": "hi"}] * 3)
    memory(file).conversation("thread-2").append("hi")
    assert fine(run("ls", "--conversations")).splitlines() == ["thread-1", "thread-2"]
    assert fine(run("ls", "--conversations", "--long", "--prefix", "thread-1")).split()[0] == "3"
    assert json.loads(fine(run("ls", "--conversations", "--json", "--prefix", "thread-1")))["messages"] == 3


@pytest.mark.parametrize("command", ["ls", "ls --json", "export"])
def test_a_pipe_that_closes_early_is_no_fault(run, file, command):
    keys = {f"key-{number:06} {'x' * 100}": number for number in range(5_000)}
    memory(file).set_many(dict(list(keys.items())))
    line = f"{sys.executable} -m botwire.cli {command} | head -n 1"
    script = ["bash", "-c", f"{line}; echo code ${{PIPESTATUS[0]}}"]
    done = subprocess.run(script, capture_output=True, text=True, env=environment(BOTWIRE_URL=f"sqlite:///{file}"))
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "code 141"
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("command", ["ls", "export", "doctor"])
def test_output_that_cannot_be_written_is_told(file, command):
    fill(file)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, command], stdout=full, stderr=subprocess.PIPE, env=environment(BOTWIRE_URL=f"sqlite:///{file}")
        )
    assert done.returncode == 3
    assert done.stderr == b"error: the output cannot be written: No space left on device\n"


# ── search ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def talked(file: Path) -> Path:
    """A store with something to find."""
    with memory(file) as default:
        default.set("coffee", {"kind": "Ethiopian Yirgacheffe", "city": "Rome"}, tags=["drinks"], author="ann")
        default.set("tea", {"kind": "Earl Grey", "city": "Oslo"})
        talk = default.conversation("thread-1")
        for number, text in enumerate(["hello there", "a coffee,\nplease", "here you are"]):
            talk.append({"role": "user", "content": text}, id=f"m{number}", author="ben")
    return file


def test_search_prints_score_name_and_what_matched(run, talked):
    lines = fine(run("search", "yirgacheffe")).splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines] == ["coffee  Ethiopian «Yirgacheffe» Rome"]
    assert float(lines[0].split()[0]) > 0


def test_search_finds_messages_and_shows_those_around_them(run, talked):
    lines = fine(run("search", "coffee", "--kind", "message", "--limit", "1", "--around", "1")).splitlines()
    assert [line.strip().partition("thread-1 ")[2] for line in lines] == [
        "m0  hello there",
        "m1  a «coffee», please",
        "m2  here you are",
    ]


def test_search_exits_with_1_if_nothing_is_found(run, talked):
    done = run("search", "zebra")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        (["--where", '{"city": "Rome"}'], ["coffee"]),
        (["--where", '{"city": {"$in": ["Oslo"]}}'], []),
        (["--tag", "drinks"], ["coffee"]),
        (["--author", "ann"], ["coffee"]),
        (["--since", "2999-01-01T00:00:00Z"], []),
        (["--until", "1999-01-01T00:00:00Z"], []),
        (["--conversation", "thread-1", "--limit", "1"], ["m1"]),
    ],
)
def test_search_filters(run, talked, options, keys):
    done = run("search", "coffee", "--json", *options)
    assert done.returncode == (0 if keys else 1)
    assert [json.loads(line).get("key") or json.loads(line)["id"] for line in done.stdout.splitlines()] == keys


def test_search_as_json_says_everything(run, talked):
    done = json.loads(fine(run("search", "please", "--json", "--limit", "1", "--around", "1", "--explain")))
    assert done["value"] == {"role": "user", "content": "a coffee,\nplease"}
    assert (done["conversation"], done["id"], done["author"], done["role"]) == ("thread-1", "m1", "ben", "user")
    assert [each["id"] for each in (*done["before"], *done["after"])] == ["m0", "m2"]
    assert done["parts"]["bm25"] > 0


def test_search_looks_into_the_namespaces_below(run, talked):
    memory(talked, "default/below").set("k", "yirgacheffe")
    assert "default/below  k" in fine(run("search", "yirgacheffe", "--subtree"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--where", "city=Rome"], "is not JSON"),
        (["--where", '{"$eq": 1}'], "stands where a field should"),
        (["--embedder", "word2vec:x"], "unknown embedder"),
    ],
)
def test_a_wrong_option_of_search_is_told(run, talked, options, words):
    assert words in told(run("search", "coffee", *options), 2)


@pytest.mark.parametrize("options", [["--since", "7"], ["--limit", "0"], ["--kind", "book"]])
def test_a_wrong_use_of_search_is_told(run, talked, options):
    done = run("search", "coffee", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert options[0] in done.stderr


def test_index_makes_the_index_of_the_whole_store(run, talked):
    memory(talked, "other").set("k", "yirgacheffe")
    assert json.loads(fine(run("info", "--json")))["unindexed"] == 6
    fine(run("index"))
    assert json.loads(fine(run("info", "--json")))["unindexed"] == 0
    fine(run("-n", "other", "index", "--afresh"))
    assert "yirgacheffe" in fine(run("-n", "other", "search", "yirgacheffe")).lower()


class Embeddings(BaseHTTPRequestHandler):
    """A server with OpenAI's interface, for whose model a coffee is an espresso."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        means = [[float("coffee" in text or "espresso" in text), 0.1] for text in asked["input"]]
        answer = {"data": [{"index": place, "embedding": vector} for place, vector in enumerate(means)]}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def embedder() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Embeddings) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"openai:model@http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def test_an_embedder_finds_by_meaning_and_embed_gives_it_everything(run, talked, embedder):
    fine(run("embed", "--embedder", embedder))
    assert json.loads(fine(run("info", "--json")))["unembedded"] == 0
    found = [
        json.loads(line) for line in fine(run("search", "espresso", "--embedder", embedder, "--json")).splitlines()
    ]
    assert found[0]["id"] == "m1"
    assert run("search", "espresso").returncode == 1
    other = embedder.replace("model", "another")
    assert "replace" in told(run("search", "espresso", "--embedder", other), 2)
    fine(run("embed", "--embedder", other, "--replace"))
    fine(run("search", "espresso", "--embedder", other))


# ── export and import ───────────────────────────────────────────────────────────────────────────────


def fill(file: Path) -> None:
    target = memory(file)
    for number in range(30):
        target.set("often", number)
    target.set_many({f"key-{number}": {"n": number} for number in range(50)}, ttl=3_600, tags=["ü"])
    target.delete("key-7")
    target.conversation("talk").extend([{"role": "user", "content": "hé"}] * 20)
    target.close()


def records(file: Path, namespace: str = "default") -> list[Any]:
    return list(memory(file, namespace).records())


def test_an_export_imports_to_an_equal_namespace(process, file, tmp_path):
    fill(file)
    before = records(file)
    assert fine(process("export", str(tmp_path / "out.jsonl"))) == ""
    piped = fine(process("export"))
    assert piped == (tmp_path / "out.jsonl").read_text() == fine(process("export", "-"))
    assert fine(process("-n", "from-file", "import", str(tmp_path / "out.jsonl"))) == ""
    assert fine(process("-n", "from-pipe", "import", "-", stdin=piped)) == ""
    assert fine(call("--url", f"sqlite:///{tmp_path}/else.db", "import", str(tmp_path / "out.jsonl"))) == ""
    assert records(file, "from-file") == records(file, "from-pipe") == records(tmp_path / "else.db") == before


def test_an_export_overwrites_nothing_unless_forced(run, file, tmp_path):
    fill(file)
    target = tmp_path / "precious.txt"
    target.write_text("precious")
    assert "--force" in told(run("export", str(target)), 2)
    assert target.read_text() == "precious"
    fine(run("export", "--force", str(target)))
    assert target.read_text() == fine(run("export"))


def test_an_export_of_what_is_not_there_is_told(run, file):
    fill(file)
    assert "'typo'" in told(run("-n", "typo", "export"), 1)


def test_an_import_needs_an_empty_namespace_and_says_so(run, file, tmp_path):
    fill(file)
    fine(run("export", str(tmp_path / "out.jsonl")))
    before = records(file)
    assert "not empty" in told(run("import", str(tmp_path / "out.jsonl")), 1)
    assert records(file) == before


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no export\n",
        b'{"botwire_export":99,"namespace":"x"}\n',
        b"\xff\xfe\n",
        b'{"botwire_export":1,"namespace":"x"}\n',
    ],
    ids=["empty", "text", "newer", "bytes", "cut off"],
)
def test_what_is_no_export_is_refused_and_leaves_nothing(run, file, tmp_path, content):
    fill(file)
    (tmp_path / "bad.jsonl").write_bytes(content)
    told(run("-n", "new", "import", str(tmp_path / "bad.jsonl")), 2)
    told(run("-n", "new", "import", "-", stdin=content), 2)
    assert "new" not in fine(run("ls", "--namespaces")).splitlines()


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.99])
def test_an_export_that_was_cut_off_is_refused_and_leaves_nothing(run, file, keep):
    fill(file)
    whole = fine(run("export"))
    told(run("-n", "new", "import", "-", stdin=whole[: int(len(whole) * keep)]), 2)
    assert fine(run("ls", "--namespaces")).splitlines() == ["default"]


def test_an_import_of_a_missing_file_is_told(run, tmp_path):
    assert "missing.jsonl" in told(run("import", str(tmp_path / "missing.jsonl")), 2)


def test_an_interrupted_import_exits_with_130_and_leaves_nothing(process, file):
    fill(file)
    whole = fine(process("export")).encode().splitlines(keepends=True)
    half = b"".join([whole[0], whole[1], *[_item(number) for number in range(1_000)]])
    command = [*COMMAND, "-n", "new", "import", "-"]
    # A child inherits that SIGINT is ignored, as it is in a background job; with a handler of ours it is not.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(BOTWIRE_URL=f"sqlite:///{file}")
    ) as started:
        signal.signal(signal.SIGINT, before)
        assert started.stdin is not None
        assert started.stderr is not None
        started.stdin.write(half)
        started.stdin.flush()
        watched = memory(file, "new")
        for _ in range(600):
            if watched.stats().items >= 400:
                break
            time.sleep(0.02)
        assert watched.stats().items >= 400
        started.send_signal(signal.SIGINT)
        assert started.wait(30) == 130
        assert started.stderr.read().split() == [b"interrupted"]
    assert fine(process("ls", "--namespaces")).splitlines() == ["default"]


def _item(number: int) -> bytes:
    revision = {"value": number, "version": number + 1, "updated": 1}
    return json.dumps({"kind": "item", "key": f"k{number}", "created": 1, "revisions": [revision]}).encode() + b"\n"


def test_an_export_while_another_process_writes_imports_again(process, file, tmp_path):
    script = """
import itertools, sys
from botwire import Memory
memory = Memory("default", sys.argv[1], durability="relaxed")
for count in itertools.count():
    memory.set(f"key-{count % 5000 * 7919 % 5000}", count)
    memory.delete(f"key-{(count + 2500) % 5000 * 7919 % 5000}")
    memory.conversation(f"talk-{count % 100}").append(count)
    if count == 3000:
        print("ready", flush=True)
"""
    command = [sys.executable, "-c", script, f"sqlite:///{file}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        fine(process("export", str(tmp_path / "out.jsonl")))
        writer.kill()
    fine(process("-n", "again", "import", str(tmp_path / "out.jsonl")))


# ── upkeep ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_backup_restores_over_a_store_in_use(process, file, tmp_path):
    fill(file)
    live = memory(file)
    copy = str(tmp_path / "copy.db")
    assert fine(process("backup", copy)) == ""
    assert "--force" in told(process("backup", copy), 2)
    fine(process("backup", copy, "--force"))
    live.set("often", "changed since")
    assert "--force" in told(process("restore", copy), 2)
    assert live.get("often") == "changed since"
    assert fine(process("restore", copy, "--force")) == ""
    assert live.get("often") == 29
    assert fine(call("--url", f"sqlite:///{tmp_path}/new.db", "restore", copy)) == ""
    assert memory(tmp_path / "new.db").get("often") == 29


def test_a_restore_to_the_default_place_makes_its_folder(process, file, tmp_path):
    fill(file)
    fine(process("backup", str(tmp_path / "copy.db")))
    fine(call("restore", str(tmp_path / "copy.db"), XDG_DATA_HOME=str(tmp_path / "deep" / "home")))
    assert fine(call("get", "often", XDG_DATA_HOME=str(tmp_path / "deep" / "home"))) == "29\n"


def test_a_bad_backup_is_trouble_and_touches_nothing(run, file, tmp_path):
    fill(file)
    (tmp_path / "bad.db").write_text("no backup")
    assert "bad.db" in told(run("restore", str(tmp_path / "bad.db"), "--force"), 3)
    told(run("restore", str(tmp_path / "missing.db"), "--force"), 3)
    assert memory(file).get("often") == 29


def test_the_doctor_says_that_all_is_well(run, file):
    fill(file)
    done = run("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    assert {line.split()[0] for line in done.stdout.splitlines()} == {"ok"}
    checks = [json.loads(line) for line in fine(run("doctor", "--json")).splitlines()]
    assert {check["state"] for check in checks} == {"ok"}
    assert {check["name"] for check in checks} >= {"file", "store", "integrity", "counters", "orphans"}


def test_the_doctor_exits_with_1_for_a_warning_and_2_for_a_fault(process, file):
    fill(file)
    Path(f"{file}.backup-schema1-20260101-000000").touch()
    done = process("doctor")
    assert done.returncode == 1
    assert "warning backups" in done.stdout
    connection = apsw.Connection(str(file))
    connection.execute("UPDATE namespaces SET items = items + 1")
    connection.close()
    done = process("doctor")
    assert done.returncode == 2
    assert "failed  counters" in done.stdout
    assert " -> " in done.stdout
    os.truncate(file, 10_000)
    assert process("doctor").returncode == 2


def test_the_doctor_of_a_store_that_is_not_there_fails_and_makes_nothing(run, file):
    done = run("doctor")
    assert done.returncode == 2
    assert "does not exist" in done.stdout
    assert not file.exists()


def test_info_says_where_the_store_is_and_how_much_it_holds(run, file):
    about = json.loads(fine(run("info", "--json")))
    assert (about["botwire"], about["store"], about["exists"]) == (botwire.__version__, str(file), False)
    assert not file.exists()
    fill(file)
    about = json.loads(fine(run("info", "--json")))
    assert (about["items"], about["messages"], about["namespaces"], about["durability"]) == (50, 20, 1, "full")
    assert about["file_bytes"] == file.stat().st_size
    text = fine(run("info"))
    assert "messages:       20" in text
    assert "KiB" in text


# ── bad input and trouble ───────────────────────────────────────────────────────────────────────────

READING = [
    "get key",
    "search key",
    "index",
    "ls",
    "ls --namespaces",
    "history key",
    "undo key",
    "delete key",
    "export",
    "backup copy.db",
]


@pytest.mark.parametrize("command", READING)
def test_a_command_that_reads_makes_no_store(run, file, tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(file) in told(run(*command.split()), 3)
    assert list(tmp_path.iterdir()) == []


BAD_VALUES = [
    "text",
    "",
    "{'a': 1}",
    "[1,",
    "NaN",
    "[Infinity]",
    "1e999",
    "[" * 2_000,
    "[" * 200 + "]" * 200,
    "01",
    "1 2",
]


@pytest.mark.parametrize("value", BAD_VALUES, ids=lambda value: value[:10])
def test_a_value_that_is_no_json_is_refused_with_a_hint(run, file, value):
    message = told(run("set", "key", value), 2)
    assert len(message) < 500
    if value in ("text", "", "{'a': 1}"):
        assert "--text" in message
    assert not file.exists() or memory(file).get("key") is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["set", "", "1"], "key is empty"),
        (["set", "a\nb", "1"], "control character"),
        (["set", "\udcff", "1"], "surrogate"),
        (["set", "k" * 600, "1"], "limit is 512"),
        (["-n", "a//b", "set", "key", "1"], "empty level"),
        (["-n", "", "set", "key", "1"], "namespace is empty"),
        (["set", "key", "1", "--ttl", "0"], "more than 0 seconds"),
        (["set", "key", "1", "--ttl", "200000d"], "century"),
        (["set", "key", "1", "--tag", ""], "tag is empty"),
        (["set", "key", "1", "--if-version", "-1"], "if_version"),
        (["delete", "a", "b", "--if-version", "1"], "single key"),
        (["--url", "memory.db", "get", "key"], "sqlite:///memory.db"),
        (["--url", "redis://x", "get", "key"], "redis"),
        (["--url", "", "get", "key"], "no URL"),
        (["--url", "sqlite://", "backup", "x"], "about a file"),
        (["--url", "sqlite://", "doctor"], "about a file"),
    ],
)
def test_bad_input_is_told_in_a_line(run, file, arguments, words):
    assert words in told(run(*arguments), 2)
    assert not file.exists() or memory(file).keys() == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frobnicate"], "No such command"),
        (["get"], "Missing argument"),
        (["delete"], "Missing argument"),
        (["set", "key"], "Missing argument"),
        (["set", "key", "1", "--ttl", "soon"], "15m"),
        (["set", "key", "1", "--ttl=-5"], "no duration"),
        (["set", "key", "1", "--if-version", "x"], "integer"),
        (["get", "key", "--as-of", "yesterday"], "2026-01-31T12:00:00Z"),
        (["get", "key", "--as-of", "2026-01-31"], "time zone"),
        (["history", "key", "--limit", "0"], "range"),
        (["ls", "--no-such-option"], "No such option"),
    ],
)
def test_wrong_usage_is_told(run, file, arguments, words):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not file.exists()


def test_stdin_that_is_no_text_is_told(process):
    assert "UTF-8" in told(process("set", "key", "-", stdin=b"\xff\xfe"), 2)
    assert "UTF-8" in told(process("set", "key", "-", "--text", stdin=b"\xff\xfe"), 2)
    told(process("set", "key", "-"), 2)


def test_a_value_over_the_limit_is_told(run, file):
    assert "limit is 1,048,576" in told(run("set", "key", "-", stdin=json.dumps("x" * 1_100_000)), 2)


def test_a_misspelt_variable_is_told(process):
    message = told(process("get", "key", BOTWIRE_ULR="sqlite:///x.db"), 2)
    assert "did you mean BOTWIRE_URL?" in message


def test_a_file_that_is_no_store_is_trouble_and_left_alone(run, file):
    file.write_text("somebody's notes\n" * 1_000)
    for arguments in (["get", "key"], ["set", "key", "1"], ["ls"], ["export"], ["info"], ["backup", f"{file}.copy"]):
        assert str(file) in told(run(*arguments), 3)
    assert file.read_text() == "somebody's notes\n" * 1_000


def test_a_damaged_store_is_trouble_that_names_the_doctor(run, file):
    fill(file)
    size = file.stat().st_size
    with file.open("r+b") as stream:
        stream.seek(4_096)
        stream.write(b"\x5a" * (size - 4_096))
    assert "botwire doctor" in told(run("get", "often"), 3)
    assert run("doctor").returncode == 2


def test_a_place_that_cannot_be_is_trouble(run, tmp_path):
    told(call("--url", f"sqlite:///{tmp_path}/no/such/memory.db", "set", "key", "1"), 3)
    told(call("--url", f"sqlite:///{tmp_path}", "set", "key", "1"), 3)


def test_quotas_are_trouble(run, file):
    memory(file).configure(max_items=1)
    fine(run("set", "a", "1"))
    assert "max_items" in told(run("set", "b", "1"), 3)


# ── how it behaves ──────────────────────────────────────────────────────────────────────────────────


def test_help_names_every_command_and_exit_code(run):
    text = fine(run("--help"))
    for command in ("get", "set", "delete", "ls", "history", "undo", "export", "import", "backup", "restore", "doctor"):
        assert f"\n  {command} " in text
        assert "Usage: botwire " + command in fine(run(command, "--help"))
    assert "130" in text
    assert fine(run("--version")) == f"botwire {botwire.__version__}\n"


def test_help_brings_in_neither_the_engine_nor_the_network():
    script = """
import sys
from botwire import cli
try:
    cli.main(["--help"])
except SystemExit:
    print(sorted({"apsw", "httpx", "platformdirs", "sqlite3", "asyncio"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment())
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_script_is_installed():
    from importlib.metadata import entry_points

    assert [each.value for each in entry_points(group="console_scripts") if each.name == "botwire"] == [
        "botwire.cli:main"
    ]


def test_nothing_is_left_open_beside_the_store(process, file):
    fine(process("set", "key", "1"))
    fine(process("get", "key"))
    assert [path.name for path in file.parent.iterdir() if path.name.endswith(("-wal", "-shm"))] == []


def test_output_is_utf_8_whatever_the_locale(process):
    fine(process("set", "ключ", '"✓"'))
    assert fine(process("ls", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")) == "ключ\n"
    assert fine(process("get", "ключ", PYTHONIOENCODING="ascii")) == '"✓"\n'
    message = told(process("-n", "имя", "export", PYTHONIOENCODING="ascii"), 1)
    assert "имя" in message


def test_half_a_surrogate_pair_comes_out_as_it_went_in(process):
    fine(process("set", "key", '"\\ud800"'))
    assert fine(process("get", "key")) == '"\\ud800"\n'
    assert process("get", "key", "--raw").returncode == 0


def test_many_processes_at_once_lose_nothing(file):
    given = {f"key-{number}": number for number in range(8)}
    url = f"sqlite:///{file}"
    children = [
        subprocess.Popen(
            [*COMMAND, "--url", url, "set", key, str(number)], env=environment(), stdout=subprocess.DEVNULL
        )
        for key, number in given.items()
    ]
    assert [child.wait() for child in children] == [0] * 8
    assert {item.key: item.value for item in memory(file).items()} == given


def test_a_key_that_is_no_unicode_is_told(process):
    assert "surrogate" in told(process("set", b"\xff\xfe", "1"), 2)


@pytest.mark.parametrize("command", ["export out.jsonl", "backup copy.db", "index"])
def test_progress_is_shown_on_a_terminal_only(file, tmp_path, command):
    fill(file)
    leader, follower = pty.openpty()
    done = subprocess.run(
        [*COMMAND, *command.split()], stdout=subprocess.PIPE, stderr=follower, cwd=tmp_path,
        env=environment(BOTWIRE_URL=f"sqlite:///{file}"),
    )  # fmt: skip
    os.close(follower)
    shown = b""
    while chunk := _read(leader):
        shown += chunk
    os.close(leader)
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"100%" in shown


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65_536)
    except OSError:  # how Linux says that the other end is closed
        return b""


def test_a_store_that_cannot_be_written_can_be_read(run, file):
    fill(file)
    if os.geteuid() == 0:
        pytest.skip("root may write everything")
    file.chmod(0o400)
    assert fine(run("get", "often")) == "29\n"
    told(run("set", "often", "1"), 3)


def test_the_library_sees_at_once_what_the_command_has_set(process, file):
    store = SQLiteStore(str(file))
    watching = Memory("default", store=store)
    cursor = watching.cursor()
    fine(process("set", "key", "1"))
    assert [change.key for change in watching.watch(cursor, timeout=0.2)] == ["key"]
    store.close()
