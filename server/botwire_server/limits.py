"""How much: requests a second, streams at once, wrong keys; and the quotas that the store itself keeps.

The header fields `RateLimit` and `RateLimit-Policy` are those of draft-ietf-httpapi-ratelimit-headers-10.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from botwire.errors import BotWireError, RateLimited, StoreBusy
from botwire.ops import Configure, Describe, Policy
from botwire.stores.base import AsyncStore

from .guard import LOCAL, Principal
from .settings import Settings

FREE_TIER: Final = Policy(writes_per_day=1_000, max_bytes=50_000_000)
"""What the published free tier gave to each namespace."""

FAILURES: Final = 20  # wrong keys that may come from one address at once …
FAILURES_PER_SECOND: Final = 0.2  # … and afterwards
MAX_KNOWN: Final = 10_000  # callers remembered
STREAM_RETRY: Final = 5.0  # seconds after which a stream may have ended

Fields = list[tuple[bytes, bytes]]


class OverLimit(RateLimited):
    """A limit of the server's own, with the header fields that tell of it."""

    def __init__(self, retry_after: float = 60, message: str | None = None, fields: Fields | None = None) -> None:
        super().__init__(retry_after, message)
        self.fields: Fields = fields or []


class Rate:
    """A token bucket for each caller, kept as one number: when its bucket will be full again."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.burst = burst
        self._interval = 1 / per_second  # seconds in which one token comes back
        self._clock = clock
        self._full_at: dict[str, float] = {}

    def take(self, who: str) -> float:
        """Take a token. Returns 0, or how many seconds are left until there is one."""
        now = self._clock()
        full_at = max(self._full_at.get(who, now), now)
        wait = full_at + self._interval - now - self.burst * self._interval
        if wait > 1e-9:
            return wait
        if len(self._full_at) >= MAX_KNOWN and who not in self._full_at:
            self._make_room(now)
        self._full_at[who] = full_at + self._interval
        return 0.0

    def left(self, who: str) -> tuple[int, int]:
        """How many tokens there are, and in how many whole seconds there is one more."""
        now = self._clock()
        owed = max(self._full_at.get(who, now) - now, 0.0) / self._interval
        left = self.burst - owed
        return max(0, int(left + 1e-9)), 0 if owed == 0 else math.ceil((1 - left % 1) * self._interval)

    def _make_room(self, now: float) -> None:
        """Forget those whose buckets are full; if there are none, the half that is nearest to it."""
        self._full_at = {who: full_at for who, full_at in self._full_at.items() if full_at > now}
        if len(self._full_at) > MAX_KNOWN // 2:
            emptiest = sorted(self._full_at.items(), key=lambda entry: entry[1])
            self._full_at = dict(emptiest[len(emptiest) // 2 :])


class Limits:
    """What is left to whom."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        rate = settings.requests_per_second
        self._requests = Rate(rate, settings.burst or max(1, math.ceil(2 * rate)), clock) if rate else None
        self._failures = Rate(FAILURES_PER_SECOND, FAILURES, clock)
        self._streams: dict[str, int] = {}

    # ── requests ──

    def spend(self, principal: Principal, address: str) -> None:
        """Count a request, of a key, or without keys of an address. Raises `RateLimited`."""
        if self._requests is None:
            return
        wait = self._requests.take(_who(principal, address))
        if wait:
            rate = self.settings.requests_per_second
            raise OverLimit(
                wait,
                f"too many requests: {rate:g} a second, {self._requests.burst:,} at once; retry in {wait:.2g} s",
                [*self._policy(), _field("requests", 0, math.ceil(wait))],
            )

    def failed(self, address: str) -> None:
        """Count a wrong or missing key. Raises `RateLimited` when too many came from there.

        A right key is never held up by others' wrong ones: it is not counted here.
        """
        wait = self._failures.take(_network(address))
        if wait:
            raise OverLimit(
                wait,
                f"too many requests without a valid API key from this address: retry in {wait:.2g} s",
                [_field("failures", 0, math.ceil(wait))],
            )

    # ── streams ──

    @contextmanager
    def stream(self, principal: Principal) -> Generator[None]:
        """Count a stream for as long as it is open. Raises `RateLimited` when the key has too many."""
        most, who = self.settings.max_streams, principal.id
        count = self._streams.get(who, 0)
        if most and count >= most and principal != LOCAL:
            raise OverLimit(
                STREAM_RETRY,
                f"this key has {count:,} change streams open, and {most:,} are allowed: close some",
                [
                    (b"ratelimit-policy", b'"streams";q=%d;qu="concurrent-requests"' % most),
                    _field("streams", 0, math.ceil(STREAM_RETRY)),
                ],
            )
        self._streams[who] = count + 1
        try:
            yield
        finally:
            self._streams[who] -= 1
            if not self._streams[who]:
                del self._streams[who]

    # ── what the answer says of it ──

    def headers(self, principal: Principal, address: str) -> Fields:
        """The RateLimit fields of an answer; none without a limit."""
        if self._requests is None:
            return []
        return [*self._policy(), _field("requests", *self._requests.left(_who(principal, address)))]

    def _policy(self) -> Fields:
        assert self._requests is not None  # asked only where there is a limit
        window = max(1, math.ceil(self._requests.burst / self.settings.requests_per_second))
        return [(b"ratelimit-policy", b'"requests";q=%d;w=%d' % (self._requests.burst, window))]


def headers_of(error: BotWireError) -> Fields:
    """The header fields of an error that says when to come back: `Retry-After`, and the RateLimit fields."""
    match error:
        case RateLimited(retry_after=seconds):
            wait = max(1, math.ceil(seconds))
            own = error.fields if isinstance(error, OverLimit) else [_field("writes-per-day", 0, wait)]
            return [(b"retry-after", b"%d" % wait), *own]
        case StoreBusy():
            return [(b"retry-after", b"1")]
        case _:
            return []


def _field(policy: str, left: int, seconds: int) -> tuple[bytes, bytes]:
    return b"ratelimit", f'"{policy}";r={left};t={seconds}'.encode()


def _who(principal: Principal, address: str) -> str:
    return principal.id if principal != LOCAL else _network(address)


def _network(address: str) -> str:
    """The address; of IPv6 the /64, which is what one subscriber has at the least."""
    if ":" in address:
        try:
            parsed = ip_address(address.partition("%")[0])
        except ValueError:
            return address
        if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
            return str(ip_network((parsed, 64), strict=False))
    return address


# ── the store's quotas ──────────────────────────────────────────────────────────────────────────────


async def apply_quotas(store: AsyncStore, settings: Settings) -> None:
    """Have the store keep the quotas that the settings name; those that they leave out stay as they are."""
    given = Policy(writes_per_day=settings.writes_per_day, max_bytes=settings.max_bytes)
    wanted = given.over(FREE_TIER) if settings.free_tier else given
    [about] = await store.execute([Describe("")])
    if wanted.over(about.policy) != about.policy:
        await store.execute([Configure("", wanted)])
