"""Examples for the OpenAPI description: one for each schema that people meet first."""

from __future__ import annotations

from typing import Any, Final

_TIMES: Final = {"created": 1767225600000000, "updated": 1767229200000000}
_HI: Final = {"role": "user", "content": "hi"}

EXAMPLES: Final[dict[str, Any]] = {
    "NewItem": {"value": {"city": "Rome"}, "ttl": 3600, "tags": ["travel"], "author": "planner"},
    "NewExpiry": {"ttl": 3600},
    "Undo": {"author": "planner"},
    "Stamp": {"version": 3, **_TIMES},
    "Erasure": {"key": "coffee"},
    "Policy": {"history": 16, "max_bytes": 50000000},
    "SentMessages": {"messages": [{"value": _HI, "id": "m-1"}]},
    "NewText": {"value": {"role": "user", "content": "hello"}},
    "Trimming": {"keep": 100},
    "Batch": {"ops": [{"op": "put", "namespace": "user-42", "key": "coffee", "value": "Yirgacheffe"}]},
    "PublishedValue": {"value": "Yirgacheffe"},
    "Change": {"kind": "set", "version": 3, "updated": 1767229200000000, "cursor": "v3", "key": "coffee"},
    "Problem": {
        "type": "urn:botwire:problem:conflict",
        "title": "Conflict",
        "status": 412,
        "detail": "'coffee' in 'user-42' is at version 3, not at 2: read it again and decide anew",
        "version": 3,
        "request_id": "5f1d7a84-1",
    },
}
