"""So much a minute: what was used comes back bit by bit (a token bucket), so that no two bursts meet at a border.

Where several processes serve, a bucket is one for all of them. It lies in memory that they share, and nobody locks it:
each process writes numbers of its own, and reads everybody's. What is left follows from the moment when the bucket is
full again, and that is

    full = the latest of all `begun` + the sum of all `delay`

where `delay` is all that a process ever took, as the seconds in which it comes back, and `begun` is moved on by whoever
takes from a bucket that is full: from now on it is delayed. `begun` never goes back, so that one who was stopped in the
middle undoes nothing of what the others did since; and a sum loses nothing that several take at once. They may both
take the last that is left: the next ones wait for it longer.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import time

__all__ = ["Bucket", "SharedBucket", "Table", "bucket_of", "share"]

_SETS = 4096
_WAYS = 16  # buckets of a set: 10,000 callers with two buckets each are 5 of a set, on average


class Bucket:
    """What is left of so much a minute."""

    __slots__ = ("_left", "_since", "size")

    def __init__(self, size: int) -> None:
        self.size, self._left, self._since = size, float(size), time.monotonic()

    @property
    def left(self) -> float:
        now = time.monotonic()
        self._left = min(self.size, self._left + (now - self._since) * self.size / 60)
        self._since = now
        return self._left

    def take(self, amount: float) -> None:
        """Take it, whatever is left: what was used and not foreseen is owed."""
        self._left = min(self.size, self.left - amount)

    def until(self, amount: float) -> float:
        """Seconds until so much is left."""
        return max(0.0, (min(amount, self.size) - self.left) * 60 / self.size)


class SharedBucket(Bucket):
    """One that several processes take from.

    Args:
        size: what it holds, which comes back in a minute.
        tag: its own, in the table.
    """

    __slots__ = ("_table", "_tag")

    def __init__(self, size: int, tag: int, table: Table) -> None:
        self.size, self._tag, self._table = size, tag, table

    @property
    def left(self) -> float:
        delay = self._table.full(self._table.slot(self._tag)) - time.monotonic()
        return min(self.size, self.size - delay * self.size / 60)

    def take(self, amount: float) -> None:
        self._table.delay(self._table.slot(self._tag), amount * 60 / self.size)


class Table:
    """The buckets of several processes.

    A bucket has one of the places of its set, known by its tag. One that is full is as good as new, so that its place
    can be another's: the place that has been full for longest is taken. Were none of a set full, the one that is so
    first would be taken, with what is owed there.

    Args:
        file: its descriptor, which may be closed afterwards; the same for all.
        number: of this process, from 0 on, which the one that takes its place has, too.
        processes: how many there are.
        sets: of places.
    """

    def __init__(self, file: int, number: int, processes: int, sets: int = _SETS) -> None:
        self._number, self._processes, self._sets = number, processes, sets
        tags = 8 * sets * _WAYS
        size = tags * (1 + 2 * processes)
        os.ftruncate(file, size)  # all say the same, and memory that nothing was written to is only address space
        page = memoryview(mmap.mmap(file, size))
        self._tags: memoryview[int] = page[:tags].cast("Q")
        self._numbers: memoryview[float] = page[tags:].cast("d")

    def bucket(self, *name: str, size: int) -> SharedBucket:
        """The bucket of a name. One of another size is another bucket."""
        digest = hashlib.blake2b("\0".join((str(size), *name)).encode("utf-8", "surrogatepass"), digest_size=8)
        return SharedBucket(size, int.from_bytes(digest.digest(), "little"), self)

    def slot(self, tag: int) -> int:
        """The place of a bucket.

        It is looked for each time, from the first one on: where two processes gave a new bucket two places at the same
        moment, they agree again at the next look, and nobody owes what one of them took meanwhile.
        """
        first = tag % self._sets * _WAYS
        tags = self._tags[first : first + _WAYS].tolist()
        if tag in tags:
            return first + tags.index(tag)
        free = min(range(first, first + _WAYS), key=self.full)
        self._tags[free] = tag
        return free

    def full(self, slot: int) -> float:
        """The moment when it is full again, or has been since."""
        count, start = self._processes, 2 * slot * self._processes
        numbers = self._numbers[start : start + 2 * count].tolist()
        return max(numbers[:count]) + sum(numbers[count:])

    def delay(self, slot: int, seconds: float) -> None:
        """It is full so much later; earlier where it is negative."""
        now = time.monotonic()  # before the others' numbers are read: what they take meanwhile must not be forgotten
        count, start = self._processes, 2 * slot * self._processes
        numbers = self._numbers[start : start + 2 * count].tolist()
        mine = start + self._number
        self._numbers[mine] = max(*numbers[:count], now - sum(numbers[count:]))
        self._numbers[mine + count] += seconds


# ---------------------------------------------------------------- this process
_table: Table | None = None


def share(file: int, number: int, processes: int) -> None:
    """This process is one of several that serve: what it counts from now on counts for all. As `Table` has it."""
    global _table
    _table = Table(file, number, processes)


def bucket_of(caller: str, what: str, size: int) -> Bucket:
    """What a caller may use of something in a minute; over all processes, where several serve."""
    return Bucket(size) if _table is None else _table.bucket(what, caller, size=size)
