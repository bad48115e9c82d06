"""Search: `/v1/namespaces/{namespace}/search`."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from botwire.ops import MAX_AROUND, MAX_HITS, HitPage, Search

from . import answers, parameters
from .doors import Call, Doors
from .namespaces import NAMESPACE

doors = Doors()


@doors.door(
    "GET",
    NAMESPACE + "/search",
    query={
        "query": parameters.text("What to look for, in plain words.", {"type": "string", "maxLength": 10_000}),
        "limit": parameters.whole("How many at most.", maximum=MAX_HITS, default=10),
        "kinds": parameters.choices("Items alone, or messages alone.", "item", "message"),
        "where": parameters.WHERE,
        "tag": parameters.TAGS,
        "author": parameters.AUTHOR,
        "conversation": parameters.CONVERSATION,
        "since": parameters.SINCE,
        "until": parameters.UNTIL,
        "around": parameters.whole("Messages before and after each message.", maximum=MAX_AROUND, default=0),
        "explain": parameters.flag("Tell how each score came about."),
        "subtree": parameters.SUBTREE,
    },
    answers={200: HitPage},
)
async def search(call: Call) -> Response:
    """Find items and messages by what they say, best first."""
    asked: dict[str, Any] = {"query": "", **call.query}
    return answers.json(await call.ask(Search(call.namespace, **asked)))
