"""`docs/http-api.md` says what is so: its curl examples are run, top to bottom, against a real server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.server.running import PATIENCE, Start

from botwire_server.app import DOORS

PAGE = Path(__file__).parents[2] / "docs" / "http-api.md"
TEXT = PAGE.read_text(encoding="utf-8")
EXAMPLES = re.findall(r"(?ms)^```sh\n(.*?)^```\n\n```(json|text)\n(.*?)^```$", TEXT)
YEAR_2001 = 10**15  # microseconds: numbers from here on are times


def test_every_door_stands_in_the_table():
    table = dict(re.findall(r"(?m)^\| `(/\S*)` \| (.*) \|$", TEXT))
    for door in DOORS:
        path = door.path.replace(":path", "")
        if path in ("/", "/openapi.json"):
            assert f"`{path}`" in TEXT
        else:
            assert f"`{door.method}`" in table[path], (door.method, path)


def test_every_example_shows_what_it_answers():
    assert len(EXAMPLES) == TEXT.count("```sh\n")
    assert len(EXAMPLES) > 20


@pytest.mark.skipif(shutil.which("curl") is None, reason="the examples are for curl")
def test_curl_gets_what_the_page_says(server: Start, tmp_path: Path):
    served = server()
    for command, kind, shown in EXAMPLES:
        local = command.replace("http://localhost:8765", served.url)
        printed = run(local, tmp_path, wanted=shown)
        if kind == "json":
            assert list(values(printed)) == list(like(list(values(printed)), list(values(shown)))), command
        else:
            compare_lines(printed, shown, command)


def run(command: str, folder: Path, wanted: str) -> str:
    """What a command prints; of one that goes on for ever, up to where the page stops."""
    command = command.replace("curl ", "curl -sS ")
    if "event-stream" not in command:
        ran = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, timeout=PATIENCE)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout
    with subprocess.Popen(["sh", "-c", "exec " + command], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in wanted.splitlines()]
        process.kill()
    return "".join(lines)


def values(text: str) -> Iterator[Any]:
    """The JSON values in a text, one behind the other."""
    decoder, place = json.JSONDecoder(), 0
    while place < len(text.rstrip()):
        value, place = decoder.raw_decode(text, place)
        yield value
        place += len(text[place:]) - len(text[place:].lstrip())


def like(got: Any, shown: Any) -> Any:
    """What the page shows, with the times, and what it leaves open, as they are."""
    if shown == "…" or (isinstance(got, int) and isinstance(shown, int) and min(got, shown) > YEAR_2001):
        return got
    if isinstance(shown, dict) and isinstance(got, dict):
        return {name: like(got.get(name), value) for name, value in shown.items()}
    if isinstance(shown, list) and isinstance(got, list) and len(got) == len(shown):
        return [like(one, other) for one, other in zip(got, shown, strict=True)]
    return shown


def compare_lines(printed: str, shown: str, command: str) -> None:
    """Each line of the page must come, in its order; others may come in between."""
    came = iter(printed.replace("HTTP/1.1 ", "\nHTTP/1.1 ").splitlines())  # bodies end without a new line
    for line in shown.splitlines():
        pattern = re.compile(".*".join(map(re.escape, line.split("…"))) + r"\s*", re.IGNORECASE)
        assert any(pattern.fullmatch(each) for each in came), (command, line, printed)
