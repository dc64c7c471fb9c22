"""Collects samples into shards and commits each of them: the tar whole, then its index."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import TracebackType

import numpy as np

from retfound_dist.config.schema import PackOut
from retfound_dist.errors import DataError, RetfoundError, StorageError
from retfound_dist.formats.shard_set import FieldsDigest, IndexFile, Shard
from retfound_dist.io import disk_errors, storage, verified_files
from shards.images.suspects import NAMED
from shards.planning.pack_plan import Marks, PackPlan
from shards.write import set_ownership
from shards.write.committed_shards import CommittedShard, Suspects
from shards.write.packed_sample import SAME, PackedSample, Skipped
from shards.write.seen_images import SeenImages
from shards.write.set_ownership import ShardNames
from shards.write.statistics import Statistics
from shards.write.tar_shard import TarShard, index_bytes


class ShardWriter:
    """Takes the results of a plan in order. `shards` and `skipped` hold what has become of them so far.

    Use it as a context manager: no open shard is left behind, whatever ends the block.
    """

    def __init__(
        self,
        out: PackOut,
        plan: PackPlan,
        folder: str,
        shards: Sequence[CommittedShard],
        base: Sequence[CommittedShard] = (),
        series: ShardNames | None = None,
        confirm: Callable[[], None] = lambda: None,
    ) -> None:
        """Continue after `shards`. `folder`: scratch for an open shard that goes to another machine.

        `base`: shards of the set that this plan is appended to. `confirm` is called before each shard is
        put, and raises where this process must not write there any more.
        """
        self._series = series or ShardNames(out.name, first=len(base))
        self._confirm = confirm
        self.shards = list(shards)
        self.skipped = [skip for done in shards for skip in done.skipped]
        self._out, self._plan, self._folder = out, plan, folder
        self._bad = sum(skip.is_bad for skip in self.skipped)
        self._recorded = len(self.skipped)  # so many of them stand in a committed shard's index
        self._open: OpenShard | None = None
        self._marked, self._put = False, bool(shards)
        self._marks = Marks(plan)
        self._seen = SeenImages((*base, *shards))

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open:
            self._open.drop()
        if error is not None and self._marked and not self._put:
            with suppress(RetfoundError):
                set_ownership.remove_marker(self._out.url)  # nothing was put there: it is as it was

    def take(self, place: int, result: PackedSample | Skipped) -> None:
        """The result at a place of the plan; DataError when there are more bad images than tolerated."""
        if isinstance(result, Skipped):
            self.skipped.append(result)
            self._bad += result.is_bad
            self._check_budget()
            return
        first = self._seen.first(result.digest, result.key)
        if first is not None:
            # Decided here and not in the workers: which of two equal pictures is first depends on the order.
            self.skipped.append(Skipped(result.key, self._plan.scans[place].origin, f"{SAME}{first}"))
            return
        split = self._plan.scans[place].split
        if self._open and (self._open.split != split or self._open.is_full(result, self._out.shard_mb)):
            self.commit(place)
        if self._open is None:
            self._open = self._begin(split)
        self._open.add(result, self._plan.scans[place].source)

    def commit(self, place: int) -> None:
        """Put the open shard, then its index, which says that the next shard begins at `place`."""
        if self._open is None:
            return
        shard = self._open.close()
        done = self._open.record(shard, place, self.skipped[self._recorded :])
        index = index_bytes(self._open.tar.entries, done.to_tree(self._marks.at(place)))
        info = storage.bytes_info(index)
        # Right before writing: making this shard took time in which the lock may have been lost.
        self._confirm()
        done = replace(done, shard=replace(shard, index=IndexFile(shard.index.name, info.bytes, info.sha256)))
        # Before the move: of a move that fails nobody knows whether the file has arrived.
        self._put = True
        # The tar first: a kill after it leaves a tar without a record, which the next start removes.
        verified_files.move(self._open.path, storage.join(self._out.url, shard.name))
        verified_files.write(storage.join(self._out.url, shard.index.name), index)
        self.shards.append(done)
        self._seen.add(done)
        self._recorded, self._open = len(self.skipped), None

    def _begin(self, split: str | None) -> OpenShard:
        if not self._marked:
            set_ownership.write_marker(self._out.url, self._plan.fingerprint, self._series.generation)
            self._marked = True
        name = f"{self._series.stem(len(self.shards))}.tar"
        url = storage.join(self._out.url, name)
        # Beside its target on a disk, so that putting it is a rename and no second copy.
        return OpenShard(storage.draft_path(url, self._folder), name, split)

    def _check_budget(self) -> None:
        if self._bad > self._out.bad_sample_budget:
            bad = [skip for skip in self.skipped if skip.is_bad]
            raise DataError(
                f"{len(bad)} of {len(self._plan.scans):,} images cannot be used, "
                f"out.bad_sample_budget is {self._out.bad_sample_budget}: {first_few(bad)}; mend or remove "
                "them, or raise the budget (packing then goes on where it stopped)"
            )


def first_few(skipped: Sequence[Skipped], few: int = 3) -> str:
    """The first skipped images in one line."""
    named = "; ".join(str(skip) for skip in skipped[:few])
    return named + (f"; and {len(skipped) - few:,} more" if len(skipped) > few else "")


class OpenShard:
    """A shard that is being written."""

    def __init__(self, path: str, name: str, split: str | None) -> None:
        """Begin a tar at a path, for one part; `name` is what it will be called."""
        self.path, self.name, self.split = path, name, split
        self.statistics = Statistics()
        self._fields = FieldsDigest()
        self._digests: list[int] = []
        self._sources: list[tuple[int, int]] = []
        self._looks = bytearray()
        self._suspects: Suspects = {}
        with _explained(path):
            self._stream = open(path, "wb")  # noqa: SIM115  closed by `close`
        self.tar = TarShard(self._stream)

    def is_full(self, sample: PackedSample, limit_mb: float) -> bool:
        """Whether one more sample would make this shard larger than it should be."""
        return self.tar.length + len(sample.members) > limit_mb * 1e6

    def add(self, sample: PackedSample, source: str) -> None:
        """Append one sample of a source."""
        with _explained(self.path):
            self.tar.add(sample)
        self.statistics.add(sample)
        self._fields.add(sample.key, *sample.told)
        self._digests.append(sample.digest)
        self._sources.append(sample.source)
        self._looks += sample.look
        if sample.suspect:
            suspected = self._suspects.setdefault(source, {}).setdefault(sample.suspect, (0, []))
            self._suspects[source][sample.suspect] = (suspected[0] + 1, [*suspected[1], sample.key][:NAMED])

    def record(self, shard: Shard, place: int, skipped: Sequence[Skipped]) -> CommittedShard:
        """What is kept of the shard beside its samples; `place`: where the next one begins."""
        names = "\n".join(entry.key for entry in self.tar.entries)
        digests, looks = np.array(self._digests, np.uint64), bytes(self._looks)
        newly_skipped, sources = tuple(skipped), np.array(self._sources, np.uint64)
        return CommittedShard(
            shard, place, newly_skipped, self.statistics, names, digests, looks, self._suspects, sources
        )

    def close(self) -> Shard:
        """The finished file; its index is not known yet."""
        with _explained(self.path):
            sha256 = self.tar.close()
            self._stream.close()
        index = IndexFile(self.name.removesuffix(".tar") + ".idx", 0, "")
        count, length = len(self.tar.entries), self.tar.length
        return Shard(self.name, count, length, sha256, self.split, index, self._fields.hex())

    def drop(self) -> None:
        """Remove the unfinished file."""
        with suppress(OSError):
            self._stream.close()
        with suppress(OSError):
            os.unlink(self.path)


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {disk_errors.explain(error, path)}; free some space there"
            + ("" if path.endswith(".tmp") else " or set TMPDIR")
            + ", then the same command goes on"
        ) from error
