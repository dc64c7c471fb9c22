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
from shards.images.suspects import MAX_NAMED_KEYS
from shards.planning.pack_plan import PackPlan, PlanDigests
from shards.write import set_ownership
from shards.write.committed_shards import CommittedShard, Suspects
from shards.write.packed_sample import SAME_PICTURE, PackedSample, Skipped
from shards.write.seen_images import SeenImages
from shards.write.set_ownership import ShardNames
from shards.write.statistics import Statistics
from shards.write.tar_shard import TarShard, index_bytes


class ShardWriter:
    """Writes the results of a plan in order. `shards` and `skipped` hold the result so far.

    Use it as a context manager: it removes an unfinished shard when the block ends.
    """

    def __init__(
        self,
        out: PackOut,
        plan: PackPlan,
        folder: str,
        shards: Sequence[CommittedShard],
        base: Sequence[CommittedShard] = (),
        shard_names: ShardNames | None = None,
        confirm_lock: Callable[[], None] = lambda: None,
    ) -> None:
        """Continue after `shards`. `folder`: scratch for the open shard where the URL is not a local disk.

        `base`: shards of the set that this plan is appended to. `confirm_lock` is called before each shard
        is committed. It raises where this process has lost the lock.
        """
        self._shard_names = shard_names or ShardNames(out.name, first_number=len(base))
        self._confirm_lock = confirm_lock
        self.shards = list(shards)
        self.skipped = [skip for committed in shards for skip in committed.skipped]
        self._out, self._plan, self._folder = out, plan, folder
        self._bad_count = sum(skip.is_bad for skip in self.skipped)
        self._recorded_count = len(self.skipped)  # skipped scans in the indexes so far
        self._open_shard: OpenShard | None = None
        self._marker_written, self._shard_written = False, bool(shards)
        self._plan_digests = PlanDigests(plan)
        self._seen_images = SeenImages((*base, *shards))

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open_shard:
            self._open_shard.discard()
        if error is not None and self._marker_written and not self._shard_written:
            with suppress(RetfoundError):
                set_ownership.remove_marker(self._out.url)  # no shard was written there

    def add_result(self, place: int, result: PackedSample | Skipped) -> None:
        """Add the result at a place of the plan; DataError when there are more bad images than allowed."""
        if isinstance(result, Skipped):
            self.skipped.append(result)
            self._bad_count += result.is_bad
            self._check_budget()
            return
        first = self._seen_images.find_or_add(result.digest, result.key)
        if first is not None:
            # Not in the workers, because the order decides which of two equal pictures is the first.
            self.skipped.append(Skipped(result.key, self._plan.scans[place].origin, f"{SAME_PICTURE}{first}"))
            return
        split = self._plan.scans[place].split
        if self._open_shard and (
            self._open_shard.split != split or self._open_shard.is_full(result, self._out.shard_mb)
        ):
            self.commit(place)
        if self._open_shard is None:
            self._open_shard = self._begin_shard(split)
        self._open_shard.add(result, self._plan.scans[place].source)

    def commit(self, place: int) -> None:
        """Write the open shard, then its index. The next shard begins at `place`."""
        if self._open_shard is None:
            return
        shard = self._open_shard.close()
        committed = self._open_shard.make_record(shard, place, self.skipped[self._recorded_count :])
        index = index_bytes(self._open_shard.tar.entries, committed.to_tree(self._plan_digests.at(place)))
        info = storage.bytes_info(index)
        # Right before writing, because the lock may have been lost while the shard was made.
        self._confirm_lock()
        committed = replace(
            committed, shard=replace(shard, index=IndexFile(shard.index.name, info.bytes, info.sha256))
        )
        # Set before the move: after a failed move the file may or may not be there.
        self._shard_written = True
        # The tar first: a kill after it leaves a tar without an index, which the next start removes.
        verified_files.move(self._open_shard.path, storage.join(self._out.url, shard.name))
        verified_files.write(storage.join(self._out.url, shard.index.name), index)
        self.shards.append(committed)
        self._seen_images.add(committed)
        self._recorded_count, self._open_shard = len(self.skipped), None

    def _begin_shard(self, split: str | None) -> OpenShard:
        if not self._marker_written:
            set_ownership.write_marker(self._out.url, self._plan.fingerprint, self._shard_names.generation)
            self._marker_written = True
        name = f"{self._shard_names.stem(len(self.shards))}.tar"
        url = storage.join(self._out.url, name)
        # On a disk the draft is beside its target, so that the move is a rename and not a copy.
        return OpenShard(storage.draft_path(url, self._folder), name, split)

    def _check_budget(self) -> None:
        if self._bad_count > self._out.bad_sample_budget:
            bad = [skip for skip in self.skipped if skip.is_bad]
            raise DataError(
                f"{len(bad)} of {len(self._plan.scans):,} images cannot be used, "
                f"out.bad_sample_budget is {self._out.bad_sample_budget}: {first_few(bad)}; repair or remove "
                "them, or raise the budget (packing then continues where it stopped)"
            )


def first_few(skipped: Sequence[Skipped], few: int = 3) -> str:
    """Returns the first skipped images in one line."""
    listed = "; ".join(str(skip) for skip in skipped[:few])
    return listed + (f"; and {len(skipped) - few:,} more" if len(skipped) > few else "")


class OpenShard:
    """A shard that is being written."""

    def __init__(self, path: str, name: str, split: str | None) -> None:
        """Begin a tar at a draft's path, for one part; `name`: the name of the finished shard."""
        self.path, self.name, self.split = path, name, split
        self.statistics = Statistics()
        self._fields_digest = FieldsDigest()
        self._digests: list[int] = []
        self._source_digests: list[tuple[int, int]] = []
        self._difference_hashes = bytearray()
        self._suspects: Suspects = {}
        with _explain_disk_errors(path):
            self._stream = open(path, "wb")  # noqa: SIM115  closed by `close`
        self.tar = TarShard(self._stream)

    def is_full(self, sample: PackedSample, limit_mb: float) -> bool:
        """Whether one more sample would make this shard larger than it should be."""
        return self.tar.length + len(sample.members) > limit_mb * 1e6

    def add(self, sample: PackedSample, source: str) -> None:
        """Append one sample of a source."""
        with _explain_disk_errors(self.path):
            self.tar.add(sample)
        self.statistics.add(sample)
        self._fields_digest.add(sample.key, *sample.split_label_patient)
        self._digests.append(sample.digest)
        self._source_digests.append(sample.source_digests)
        self._difference_hashes += sample.difference_hash
        if sample.suspect:
            suspected = self._suspects.setdefault(source, {}).setdefault(sample.suspect, (0, []))
            self._suspects[source][sample.suspect] = (
                suspected[0] + 1,
                [*suspected[1], sample.key][:MAX_NAMED_KEYS],
            )

    def make_record(self, shard: Shard, place: int, skipped: Sequence[Skipped]) -> CommittedShard:
        """Returns the shard with everything its index records; `place`: where the next shard begins."""
        return CommittedShard(
            shard=shard,
            next_place=place,
            skipped=tuple(skipped),
            statistics=self.statistics,
            key_lines="\n".join(entry.key for entry in self.tar.entries),
            digests=np.array(self._digests, np.uint64),
            difference_hashes=bytes(self._difference_hashes),
            suspects=self._suspects,
            source_digests=np.array(self._source_digests, np.uint64),
        )

    def close(self) -> Shard:
        """Finish the tar; returns its manifest entry, in which the index has only its name.

        The index contains this entry, so its length and sha256 are known only after it: see `commit`.
        """
        with _explain_disk_errors(self.path):
            sha256 = self.tar.close()
            self._stream.close()
        index_name = self.name.removesuffix(".tar") + ".idx"
        return Shard(
            name=self.name,
            samples=len(self.tar.entries),
            bytes=self.tar.length,
            sha256=sha256,
            split=self.split,
            index=IndexFile(index_name, bytes=0, sha256=""),
            fields_sha256=self._fields_digest.hexdigest(),
        )

    def discard(self) -> None:
        """Remove the unfinished file."""
        with suppress(OSError):
            self._stream.close()
        with suppress(OSError):
            os.unlink(self.path)


@contextmanager
def _explain_disk_errors(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {disk_errors.explain(error, path)}; free some space there"
            + ("" if path.endswith(".tmp") else " or set TMPDIR")
            + ", then run the same command again: it continues"
        ) from error
