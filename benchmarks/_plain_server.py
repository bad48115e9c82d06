"""The yardstick: a plain FastAPI service with `def` routes over sqlite3, one connection for each thread.

This is how the published server is built. It keeps the current value of a key and nothing else: no history, no feed, no
limits, no keys, no metrics. `uvicorn benchmarks._plain_server:app` runs it; PLAIN_DB names its file.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from typing import Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

_local = threading.local()


def _connection() -> sqlite3.Connection:
    connection: sqlite3.Connection | None = getattr(_local, "connection", None)
    if connection is None:
        connection = _local.connection = sqlite3.connect(os.environ["PLAIN_DB"], timeout=30)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    return connection


with _connection() as first:
    first.execute(
        "CREATE TABLE IF NOT EXISTS memory (namespace TEXT, key TEXT, value TEXT, updated_at TEXT, "
        "PRIMARY KEY (namespace, key))"
    )

app = FastAPI()


class Body(BaseModel):
    """What a key is set to."""

    value: Any


@app.get("/memory/{namespace}/{key}")
def get(namespace: str, key: str) -> dict[str, Any]:
    """Read a value."""
    row = _connection().execute("SELECT value FROM memory WHERE namespace = ? AND key = ?", (namespace, key)).fetchone()
    if row is None:
        raise HTTPException(404, "not found")
    return {"namespace": namespace, "key": key, "value": json.loads(row[0])}


@app.put("/memory/{namespace}/{key}")
def put(namespace: str, key: str, body: Body) -> dict[str, Any]:
    """Set a value."""
    value = json.dumps(body.value)
    with _connection() as connection:
        connection.execute(
            "INSERT INTO memory VALUES (?, ?, ?, CURRENT_TIMESTAMP) ON CONFLICT (namespace, key) DO UPDATE SET "
            "value = excluded.value, updated_at = excluded.updated_at",
            (namespace, key, value),
        )
    return {"namespace": namespace, "key": key, "stored": True, "bytes": len(value)}
