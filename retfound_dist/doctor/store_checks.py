"""Checks of the store: how fast the shards can be read, and whether the run can be written."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from retfound_dist.doctor.check_result import CheckResult, first_fault, measure_on_ranks, values_of
from retfound_dist.doctor.checkup import Checkup
from retfound_dist.errors import StorageError
from retfound_dist.io import storage
from retfound_dist.runtime.humanize import size

READ_SHARE = 0.03
"""Share of the doctor's time in which shards are read."""
READERS = 8
"""Shards that are read at a time on a host."""
BLOCK_BYTES = 8_000_000
"""Bytes of one request of the rate."""
SMALL_READS, SMALL_BYTES, REQUEST_READERS = 400, 4_000, 16
"""Small requests, their bytes, and how many are made at a time."""
REQUESTS_PER_S = 200.0
"""A store that answers fewer small requests than this makes starts and indexes slow."""
PROBE_BYTES = 16_000_000
"""Bytes that are written and read again."""


@dataclass(frozen=True)
class ReadRates:
    """What one host reads from the store."""

    latency_s: float
    """Median of a small request."""
    requests_per_s: float
    bytes_per_s: float


def store_checks(checkup: Checkup) -> Iterator[CheckResult]:
    """`store` reads shards from all hosts at once; `store_write` writes below the run's URL."""
    yield _read_check(checkup)
    yield _write_check(checkup)


def _read_check(checkup: Checkup) -> CheckResult:
    """The speed of the slowest host while all read from the store, and the requests of all together."""
    is_first = checkup.group.world.local_rank == 0
    measured = measure_on_ranks(checkup.group, lambda: read_rates(checkup) if is_first else None)
    what_to_do = "look at data.shards, at the credentials and at AWS_ENDPOINT_URL on this host"
    if fault := first_fault("store", measured, what_to_do):
        return fault
    rates = [value for value in values_of(measured) if value is not None]
    slowest = min(rates, key=lambda rate: rate.bytes_per_s)
    requests = sum(rate.requests_per_s for rate in rates)
    text = (
        f"{size(slowest.bytes_per_s)}/s a host ({len(rates)} at once), {requests:,.0f} requests/s together, "
        f"{1000 * slowest.latency_s:.1f} ms a small request"
    )
    if requests < REQUESTS_PER_S and not storage.is_local(checkup.manifest.url):
        what_to_do = "use a store that is nearer or faster, or set data.cache_dir to a local disk"
        return CheckResult("store", "warning", text, slowest.bytes_per_s / 1e6, "MB/s", what_to_do)
    return CheckResult("store", "ok", text, slowest.bytes_per_s / 1e6, "MB/s")


def read_rates(checkup: Checkup) -> ReadRates:
    """Measure the reading of shards, at random places, for `READ_SHARE` of the time."""
    manifest = checkup.manifest
    shards = [(storage.join(manifest.url, shard.name), shard.bytes) for shard in manifest.shards]
    draw = np.random.default_rng(checkup.group.world.rank)

    def small_read(place: int) -> float:
        url, count = shards[place % len(shards)]
        began = time.perf_counter()
        storage.read_range(url, 0, min(count, SMALL_BYTES))
        return time.perf_counter() - began

    began = time.perf_counter()
    with ThreadPoolExecutor(REQUEST_READERS) as pool:
        latencies = list(pool.map(small_read, draw.integers(0, len(shards), SMALL_READS).tolist()))
    requests_per_s = SMALL_READS / (time.perf_counter() - began)

    def read_until(end: float, seed: int) -> int:
        total, own = 0, np.random.default_rng(seed)
        while time.perf_counter() < end:
            url, count = shards[int(own.integers(len(shards)))]
            begin = int(own.integers(max(1, count - BLOCK_BYTES)))
            total += len(storage.read_range(url, begin, min(count, begin + BLOCK_BYTES)))
        return total

    began = time.perf_counter()
    seeds = draw.integers(0, 2**31, READERS).tolist()
    with ThreadPoolExecutor(READERS) as pool:
        total = sum(pool.map(lambda seed: read_until(began + checkup.seconds(READ_SHARE), seed), seeds))
    seconds = time.perf_counter() - began
    return ReadRates(statistics.median(latencies), requests_per_s, total / seconds)


def _write_check(checkup: Checkup) -> CheckResult:
    """A file that each rank writes, reads again and deletes: a rank saves its own part of a checkpoint."""
    where = storage.join(checkup.trial_url, f"probe-{checkup.group.world.rank}")
    data = np.random.default_rng(checkup.group.world.rank).bytes(PROBE_BYTES)

    def write() -> float:
        began = time.perf_counter()
        storage.write_bytes(where, data)
        seconds = time.perf_counter() - began
        same = storage.read_bytes(where) == data
        storage.delete(where)
        if not same:
            raise StorageError(f"{where} holds other bytes than were written")
        return PROBE_BYTES / seconds

    measured = measure_on_ranks(checkup.group, write)
    what_to_do = "look at run.url: may this user write there, and is there room?"
    if fault := first_fault("store_write", measured, what_to_do):
        return fault
    rates = values_of(measured)
    text = f"{size(sum(rates))}/s of all ranks together into {checkup.trial_url}"
    return CheckResult("store_write", "ok", text, sum(rates) / 1e6, "MB/s")
