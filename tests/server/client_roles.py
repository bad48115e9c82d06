"""What the processes of the client's tests do, as `python client_roles.py ROLE URL`: they print a line and end well."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from pathlib import Path

from botwire import AsyncMemory, Memory
from botwire.ops import Value


def two_loops(url: str) -> str:
    """One store in two event loops, one after the other; nobody closes it."""
    from botwire.stores.http import AsyncHTTPStore

    store = AsyncHTTPStore(url)

    async def use() -> None:
        await asyncio.gather(*(AsyncMemory("user-42", store=store).set(f"k{number}", 1) for number in range(5)))

    asyncio.run(use())
    asyncio.run(use())
    return str(Memory("user-42", url=url).stats().version)


def forgotten(url: str) -> str:
    """A memory that is neither closed nor kept, while its event loop goes on."""

    from botwire.stores.http import AsyncHTTPStore

    async def use() -> str:
        memory = AsyncMemory("user-42", url=url)
        await memory.set("a", 1)
        await memory.close()
        del memory
        store = AsyncHTTPStore(url)
        await store.execute([Value("user-42", "a")])
        del store
        await asyncio.sleep(0.2)
        return str(await AsyncMemory("user-42", url=url).get("a"))

    return asyncio.run(use())


def two_loops_at_once(url: str) -> str:
    """One store in several event loops at the same time."""
    from botwire.stores.http import AsyncHTTPStore

    store = AsyncHTTPStore(url)

    async def use(name: str) -> None:
        memory = AsyncMemory("user-42", store=store)
        for number in range(20):
            await memory.set(name, number)

    threads = [threading.Thread(target=lambda name=name: asyncio.run(use(name))) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return str(Memory("user-42", url=url).stats().version)


def fork(url: str) -> str:
    """Parents and children share a memory that was used before; threads of the parent use it while it forks."""
    memory = Memory("user-42", url=url)
    memory.set("before", 0)
    stop = threading.Event()

    def go_on() -> None:
        while not stop.is_set():
            memory.increment("busy")

    thread = threading.Thread(target=go_on)
    thread.start()
    children = []
    for _ in range(8):
        child = os.fork()
        if not child:
            for _ in range(10):
                memory.increment("children")
            os._exit(0 if memory.get("before") == 0 else 1)
        children.append(child)
        for _ in range(3):
            memory.increment("parent")
    codes = [os.waitpid(child, 0)[1] for child in children]
    stop.set()
    thread.join()
    return f"{codes} {memory.get('children')} {memory.get('parent')}"


def fork_sockets(url: str) -> str:
    """A child lets go of the connections that it inherited, so that the server sees its parent hang up."""
    memory = Memory("user-42", url=url)
    memory.set("a", 1)
    before = _sockets()
    child = os.fork()
    if not child:
        os._exit(len(_sockets()))
    inherited = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return f"{before and len(before)} {inherited} {memory.get('a')}"


def _sockets() -> list[str]:
    found: list[str] = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found.append(str(entry.readlink()))
    return [link for link in found if link.startswith("socket:")]


def cold(url: str) -> str:
    """What a memory on a server imports before it is used."""
    memory = Memory("user-42", url=url)
    before = "httpx" in sys.modules
    memory.get("a")
    return f"{before} {'httpx' in sys.modules}"


if __name__ == "__main__":
    sys.stdout.write(globals()[sys.argv[1]](sys.argv[2]) + "\n")
