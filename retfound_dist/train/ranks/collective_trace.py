"""What a rank exchanged last with the others, for a run that hangs: torch's flight recorder.

    RUN/hangs/step_00000012_rank_003.json      {"gloo": {"entries": [...]}, "nccl": {...}}

Torch (2.15) keeps the last 2,000 collectives of a rank: kind, shapes, state and time, no values. The rank to
look at is the one that has not begun what the others wait for.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch.distributed as dist

from retfound_dist.io import storage
from retfound_dist.runtime.humanize import plural

WRITE_S = 20.0
"""Seconds in which the file must be written. The run may hang because its store does."""


def record_hang(run_url: str, step: int, rank: int) -> str:
    """Write what this rank's recorder holds to the run; returns a sentence for the terminal.

    `step`: the last one that this rank has done. It never raises and takes at most `WRITE_S`.
    """
    url = storage.join(run_url, "hangs", f"step_{step:08d}_rank_{rank:03d}.json")
    sentences = [f"{url} could not be written"]
    done = threading.Event()

    def record() -> None:
        try:
            traces = read_traces()
            if not traces:
                sentences[:] = ["torch recorded no collectives"]
                return
            sentences.insert(0, describe_traces(traces))
            storage.write_json(url, traces)
            sentences[-1] = f"all are in {url}"
        except Exception as error:  # an error here would keep a rank that hangs
            sentences.append(f"{type(error).__name__}: {error}")
        finally:
            done.set()

    # A thread that is left behind if the device or the store does not answer: this process ends in any case.
    threading.Thread(target=record, name="hang", daemon=True).start()
    done.wait(WRITE_S)
    return "; ".join(sentences)


def read_traces() -> dict[str, Any]:
    """Backend -> the collectives of this process, as torch gives them. Only backends that recorded some."""
    # The names are private, and an older torch is without them.
    module = getattr(dist.distributed_c10d, "torch", None)
    bindings = getattr(getattr(module, "_C", None), "_distributed_c10d", None)
    traces = {}
    for backend, name in (("gloo", "_dump_fr_trace_json"), ("nccl", "_dump_nccl_trace_json")):
        with suppress(AttributeError, RuntimeError, ValueError):
            trace = json.loads(getattr(bindings, name)())
            if trace.get("entries"):
                traces[backend] = trace
    return traces


def describe_traces(traces: Mapping[str, Any]) -> str:
    """The collective that this rank waits in, or the last one that it finished."""
    entries = list(_entries(traces))
    waiting = [entry for entry in entries if not entry.get("retired")]
    if waiting:
        more = f" and {plural(len(waiting) - 1, 'other')}" if len(waiting) > 1 else ""
        return f"this rank waits in {_name(waiting[0])}{more}"
    return f"this rank waits in no collective; the last one was {_name(entries[-1])}"


def _entries(traces: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The collectives of all backends in order of time."""
    both = [entry for trace in traces.values() for entry in trace["entries"]]
    yield from sorted(both, key=lambda entry: entry.get("time_created_ns", 0))


def _name(entry: Mapping[str, Any]) -> str:
    """`gloo:all_reduce, number 2 of group 0 (shapes [[8]])`."""
    group = entry.get("process_group") or ["?"]
    number = entry.get("collective_seq_id") or entry.get("p2p_seq_id")
    shapes = entry.get("input_sizes") or []
    kind = entry.get("profiling_name", "a collective")
    return f"{kind}, number {number} of group {group[0]} (shapes {shapes})"
