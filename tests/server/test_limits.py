"""How much: requests a second, streams at once, wrong keys; and the quotas that the store keeps."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest

from botwire.errors import InvalidInput, QuotaExceeded, RateLimited, StoreBusy
from botwire.ops import Configure, Describe, Policy, Put
from botwire.stores.sqlite import AsyncSQLiteStore, SQLiteStore
from botwire_server import Settings, limits
from botwire_server.guard import LOCAL, Principal
from botwire_server.limits import FAILURES, FREE_TIER, MAX_KNOWN, Limits, Rate, apply_quotas, headers_of

ONE, TWO = Principal("aaaaaaaaaaaa", "one"), Principal("bbbbbbbbbbbb", "two")
HOME = "203.0.113.9"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def spend_all(made: Limits, principal: Principal, address: str = HOME) -> tuple[int, RateLimited]:
    """How many requests pass, and what the next one is told."""
    for count in range(10_000):
        try:
            made.spend(principal, address)
        except RateLimited as error:
            return count, error
    raise AssertionError("there is no limit")


# ── requests ──


def test_without_a_limit_everything_passes_and_nothing_is_said(clock):
    made = Limits(Settings(), clock)
    for _ in range(1_000):
        made.spend(ONE, HOME)
    assert made.headers(ONE, HOME) == []


@pytest.mark.parametrize(
    ("rate", "burst", "at_once"), [(10.0, 0, 20), (10.0, 3, 3), (0.1, 0, 1), (0.5, 0, 1), (1_000.0, 5, 5)]
)
def test_a_burst_passes_and_then_a_request_whenever_one_is_due(clock, rate, burst, at_once):
    made = Limits(Settings(requests_per_second=rate, burst=burst), clock)
    count, error = spend_all(made, ONE)
    assert count == at_once
    assert error.retry_after == pytest.approx(1 / rate)
    clock.now += error.retry_after
    assert spend_all(made, ONE)[0] == 1
    clock.now += 3_600
    assert spend_all(made, ONE)[0] == at_once


def test_a_refused_request_costs_nothing(clock):
    made = Limits(Settings(requests_per_second=1.0, burst=1), clock)
    _, first = spend_all(made, ONE)
    for _ in range(100):
        with pytest.raises(RateLimited) as error:
            made.spend(ONE, HOME)
        assert error.value.retry_after == pytest.approx(first.retry_after)


def test_each_key_has_its_own_limit_wherever_it_comes_from(clock):
    made = Limits(Settings(requests_per_second=1.0, burst=4), clock)
    made.spend(ONE, "198.51.100.1")
    assert spend_all(made, ONE, HOME)[0] == 3
    assert spend_all(made, TWO, HOME)[0] == 4


def test_without_keys_each_address_has_its_own_limit(clock):
    made = Limits(Settings(requests_per_second=1.0, burst=4), clock)
    assert spend_all(made, LOCAL, "127.0.0.1")[0] == 4
    assert spend_all(made, LOCAL, "127.0.0.2")[0] == 4


def test_of_ipv6_a_subscriber_is_one_address(clock):
    made = Limits(Settings(requests_per_second=1.0, burst=4), clock)
    made.spend(LOCAL, "2001:db8:1:2::1")
    made.spend(LOCAL, "2001:db8:1:2:ffff::9%eth0")
    assert spend_all(made, LOCAL, "2001:0db8:0001:0002::3")[0] == 2
    assert spend_all(made, LOCAL, "2001:db8:1:3::1")[0] == 4


def test_the_fields_are_those_of_the_draft(clock):
    made = Limits(Settings(requests_per_second=10.0, burst=20), clock)
    assert made.headers(ONE, HOME) == [
        (b"ratelimit-policy", b'"requests";q=20;w=2'),
        (b"ratelimit", b'"requests";r=20;t=0'),
    ]
    made.spend(ONE, HOME)
    assert made.headers(ONE, HOME)[1] == (b"ratelimit", b'"requests";r=19;t=1')
    _, error = spend_all(made, ONE)
    assert headers_of(error) == [
        (b"retry-after", b"1"),
        (b"ratelimit-policy", b'"requests";q=20;w=2'),
        (b"ratelimit", b'"requests";r=0;t=1'),
    ]


def test_the_remaining_requests_are_those_that_pass(clock):
    made = Limits(Settings(requests_per_second=3.0, burst=7), clock)
    for step in (0.0, 0.1, 0.33, 1.0, 0.5):
        made.spend(ONE, HOME)
        clock.now += step
        left = int(made.headers(ONE, HOME)[1][1].split(b"r=")[1].split(b";")[0])
        assert left == spend_all(Copy(made, clock), ONE)[0]


class Copy(Limits):
    """What a limiter would do, without doing it."""

    def __init__(self, original: Limits, clock: Clock) -> None:
        super().__init__(original.settings, clock)
        assert self._requests is not None
        assert original._requests is not None
        self._requests._full_at = dict(original._requests._full_at)


def test_retry_after_is_never_before_the_limit_is_over(clock):
    made = Limits(Settings(requests_per_second=0.3), clock)
    _, error = spend_all(made, ONE)
    fields = dict(headers_of(error))
    assert int(fields[b"retry-after"]) >= math.ceil(error.retry_after)
    assert fields[b"ratelimit"] == b'"requests";r=0;t=%d' % math.ceil(error.retry_after)


def test_the_memory_of_callers_is_bounded(clock):
    rate = Rate(1.0, 2, clock)
    for number in range(3 * MAX_KNOWN):
        rate.take(f"caller {number}")
        clock.now += 0.000_01
    assert len(rate._full_at) <= MAX_KNOWN
    last = f"caller {3 * MAX_KNOWN - 1}"
    assert rate.take(last) == 0  # its second
    assert rate.take(last) > 0  # it is not forgotten


def test_who_has_not_come_for_long_is_forgotten_first(clock):
    rate = Rate(1.0, 100, clock)
    for _ in range(50):
        rate.take("busy")
    for number in range(MAX_KNOWN - 1):
        rate.take(f"caller {number}")
    clock.now += 5
    rate.take("one more")
    assert rate.left("busy")[0] == 55
    assert len(rate._full_at) < 10


# ── wrong keys ──


def test_wrong_keys_from_one_address_are_held_up_and_others_are_not(clock):
    made = Limits(Settings(), clock)
    for _ in range(FAILURES):
        made.failed(HOME)
    with pytest.raises(RateLimited, match="without a valid API key") as error:
        made.failed(HOME)
    made.failed("198.51.100.1")
    clock.now += error.value.retry_after
    made.failed(HOME)
    with pytest.raises(RateLimited):
        made.failed(HOME)


def test_a_right_key_is_not_held_up_by_wrong_ones_from_its_address(clock):
    made = Limits(Settings(requests_per_second=5.0), clock)
    for _ in range(FAILURES):
        made.failed(HOME)
    made.spend(ONE, HOME)


# ── streams ──


def test_a_key_has_so_many_streams_and_no_more():
    made = Limits(Settings(max_streams=2))
    with made.stream(ONE), made.stream(ONE), made.stream(TWO):
        with pytest.raises(RateLimited, match="2 change streams open") as error, made.stream(ONE):
            pass
        assert (b"ratelimit-policy", b'"streams";q=2;qu="concurrent-requests"') in headers_of(error.value)
    with made.stream(ONE), made.stream(ONE):
        pass
    assert made._streams == {}


def test_a_stream_that_breaks_is_counted_no_longer():
    made = Limits(Settings(max_streams=1))
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), made.stream(ONE):
            raise ZeroDivisionError
    assert made._streams == {}


@pytest.mark.parametrize(("settings", "principal"), [(Settings(max_streams=0), ONE), (Settings(max_streams=1), LOCAL)])
def test_without_keys_or_with_no_limit_there_are_any_number_of_streams(settings, principal):
    made = Limits(settings)
    with made.stream(principal), made.stream(principal), made.stream(principal):
        pass


# ── errors of the store ──


def test_errors_that_say_when_to_come_back_say_it_in_the_header_too():
    assert headers_of(RateLimited(86_399.2, "day")) == [
        (b"retry-after", b"86400"),
        (b"ratelimit", b'"writes-per-day";r=0;t=86400'),
    ]
    assert headers_of(StoreBusy("busy")) == [(b"retry-after", b"1")]
    assert headers_of(InvalidInput("no")) == []


# ── quotas ──


@pytest.fixture
async def store(tmp_path: Path):
    made = AsyncSQLiteStore(SQLiteStore(str(tmp_path / "memory.db"), durability="relaxed"))
    yield made
    await made.close()


async def policy_of(store: AsyncSQLiteStore) -> Policy:
    [about] = await store.execute([Describe("")])
    policy: Policy = about.policy
    return policy


async def test_the_free_tier_is_the_published_one(store):
    await apply_quotas(store, Settings(free_tier=True))
    policy = await policy_of(store)
    assert (policy.writes_per_day, policy.max_bytes) == (1_000, 50_000_000)
    assert Policy(writes_per_day=1_000, max_bytes=50_000_000) == FREE_TIER


async def test_quotas_that_are_named_go_before_the_free_tier(store):
    await apply_quotas(store, Settings(free_tier=True, writes_per_day=7))
    policy = await policy_of(store)
    assert (policy.writes_per_day, policy.max_bytes) == (7, 50_000_000)


async def test_quotas_that_are_left_out_stay_as_the_store_has_them(store):
    await store.execute([Configure("", Policy(writes_per_day=5, history=2))])
    await apply_quotas(store, Settings())
    await apply_quotas(store, Settings(max_bytes=1_000))
    policy = await policy_of(store)
    assert (policy.writes_per_day, policy.max_bytes, policy.history) == (5, 1_000, 2)
    await apply_quotas(store, Settings(writes_per_day=0))
    assert (await policy_of(store)).writes_per_day == 0


async def test_the_store_keeps_the_quotas(store):
    await apply_quotas(store, Settings(writes_per_day=2, max_bytes=100))
    with pytest.raises(QuotaExceeded):
        await store.execute([Put("ns", "k", msgspec.Raw(b'"%s"' % (b"x" * 200)))])
    for _ in range(2):
        await store.execute([Put("ns", "k", msgspec.Raw(b"1"))])
    with pytest.raises(RateLimited) as error:
        await store.execute([Put("ns", "k", msgspec.Raw(b"1"))])
    assert 0 < error.value.retry_after <= 86_401
    await store.execute([Put("other", "k", msgspec.Raw(b"1"))])


def test_the_draft_that_is_followed_is_named():
    assert "draft-ietf-httpapi-ratelimit-headers-10" in (limits.__doc__ or "")
