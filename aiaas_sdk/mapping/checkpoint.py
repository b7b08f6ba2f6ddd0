"""The answers of a `map` on disk, so that a run that was ended goes on where it stopped.

A journal. Its first record says which model answered; each further one is an entry, written as its answer came.
Failures aren't kept: a run that goes on asks for those rows again.
"""

from __future__ import annotations

import json
import struct
import time
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiaas_sdk.errors import ConfigError, ProtocolError
from aiaas_sdk.mapping.chunks import Chunk
from aiaas_sdk.mapping.entry import Entry, digests, packed
from aiaas_sdk.mapping.journal import Journal
from aiaas_sdk.mapping.steps import Answers
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.records.prediction import Prediction, rows_of
from aiaas_sdk.tensors import Kind

__all__ = ["Checkpoint", "KeptRows"]

SYNC = 5.0
"""Seconds between two times at which the disk itself is made to hold what was written."""


@dataclass(frozen=True, slots=True)
class KeptRows:
    """Consecutive rows that one entry answers, and the kind of arrays that they are given in."""

    checkpoint: Checkpoint
    rows: range
    place: _Place
    kind: Kind

    def answers(self) -> Answers:
        answer = self.checkpoint.answer(self.place, self.kind)
        first = self.place.rows.start
        places = range(self.rows.start - first, self.rows.stop - first)
        return Answers(self.rows, rows_of(answer, places), kept=True)


class Checkpoint:
    """The answers so far, and the file that further ones go to. `keep` is safe across threads.

    In memory are the place of each entry (32 bytes) and one entry.

    Args:
        path: the file; it is made where there is none.
        info, address: the model that is asked.

    Raises:
        ConfigError: the file is in use, no checkpoint, or of another model; it is left as it is.
    """

    def __init__(self, path: Path, info: ModelInfo, address: str) -> None:
        self._path, self._labels = path, info.labels
        self._journal = Journal(path)
        self._synced = time.monotonic()
        self._entry: tuple[_Place, Entry] | None = None
        self._answer: tuple[_Place, Kind, Prediction] | None = None
        try:
            self._places = self._opened(_identity(info, address))
        except BaseException:
            self._journal.close()
            raise

    def _opened(self, identity: Mapping[str, Any]) -> _Places:
        """Where the entries are, once it is known that they are this model's."""
        records, found = self._journal.records(), array("q")
        if (first := next(records, None)) is not None:
            self._check_same(self._json(*first), identity)
        for at, length in records:
            rows = self._parsed(at, length).rows
            found.extend((rows.start, rows.stop, at, length))
        if first is None:
            self._journal.append((json.dumps(identity).encode(),))
        return _Places(found)

    def _json(self, at: int, length: int) -> dict[str, Any]:
        try:
            found = json.loads(self._journal.read(at, length))
        except ValueError:
            raise self._broken() from None
        if not isinstance(found, dict):
            raise self._broken()
        return found

    def _check_same(self, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        other = [name for name in now if then.get(name) != now[name]]
        if None in (then.get("digest"), now["digest"]):  # one side wasn't told
            other = [name for name in other if name != "digest"]
        if other:
            told = "; ".join(f"{name} {json.dumps(then.get(name))} then, {json.dumps(now[name])} now" for name in other)
            raise ConfigError(
                f"the checkpoint {self._path} holds the answers of another model: {told}",
                hint="Ask that model, or give another path; the file was left as it is",
            )

    def _parsed(self, at: int, length: int) -> Entry:
        try:
            return Entry.parse(lambda size: self._journal.read(at, min(size, length)))
        except (KeyError, TypeError, ValueError, struct.error):
            raise self._broken() from None

    def _broken(self) -> ConfigError:
        return ConfigError(f"the checkpoint {self._path} holds what no map has written", hint="Give another path")

    # ------------------------------------------------------------ what is there
    def split(self, chunk: Chunk) -> Iterator[Chunk | KeptRows]:
        """The chunk as what is still to be asked, and what was answered. Chunks come in the order of their rows.

        Raises:
            ConfigError: a row isn't the one that was answered.
        """
        begin, stop = chunk.rows.start, chunk.rows.stop
        while begin < stop:
            place = self._places.at(begin)
            known = place is not None and place.rows.start <= begin
            end = stop if place is None else min(place.rows.stop if known else place.rows.start, stop)
            whole = end - begin == len(chunk.rows)
            part = chunk if whole else chunk.part(begin - chunk.rows.start, end - chunk.rows.start)
            if place is not None and known:
                self._check_rows(part, place)
                yield KeptRows(self, part.rows, place, Kind.of(part.inputs))
            else:
                yield part
            begin = end

    def _check_rows(self, part: Chunk, place: _Place) -> None:
        if self._entry is None or self._entry[0] != place:
            self._entry = place, self._parsed(place.at, place.length)
        then = self._entry[1]
        for row, digest in zip(part.rows, digests(part) if part.inputs else (b"",), strict=True):
            if digest != then.digest(row):
                error = ConfigError(
                    f"this row isn't the one that the checkpoint {self._path} holds an answer to",
                    hint="Give the rows of the first run, in their order, or another path",
                )
                error.row = row
                raise error

    def answer(self, place: _Place, kind: Kind) -> Prediction:
        """What an entry holds."""
        if self._answer is None or self._answer[:2] != (place, kind):
            entry = self._parsed(place.at, place.length)
            try:
                answer = entry.prediction(self._journal.read(place.at, place.length), kind, self._labels)
            except (ProtocolError, TypeError, ValueError):
                raise self._broken() from None
            self._answer = place, kind, answer
        return self._answer[2]

    # ------------------------------------------------------------ what is new
    def keep(self, chunk: Chunk, answer: Prediction) -> None:
        """Write the answer down. After `close`, when nobody waits for it any more, nothing is written.

        Raises:
            ConfigError: the disk refused.
        """
        self._journal.append(packed(chunk, answer))

    def due(self) -> bool:
        """Whether it is time for `sync`."""
        now = time.monotonic()
        if now - self._synced < SYNC:
            return False
        self._synced = now
        return True

    def sync(self) -> None:
        """Have the disk itself hold what was written."""
        self._journal.sync()

    def close(self) -> None:
        self._journal.close()


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an entry is, and the rows that it answers."""

    rows: range
    at: int
    length: int


class _Places:
    """The places of all entries, in the order of their rows. They are asked for in that order."""

    def __init__(self, found: array[int]) -> None:
        import numpy as np

        table = np.frombuffer(found, np.int64).reshape(-1, 4) if found else np.empty((0, 4), np.int64)
        self._table = table[np.argsort(table[:, 0], kind="stable")]
        self._next = 0

    def at(self, row: int) -> _Place | None:
        """That of the first entry which ends behind this row; it may begin behind it."""
        while self._next < len(self._table):
            start, stop, at, length = self._table[self._next].tolist()
            if stop > row:
                return _Place(range(start, stop), at, length)
            self._next += 1
        return None


def _identity(info: ModelInfo, address: str) -> dict[str, Any]:
    """What a model is known by."""
    digest = info.metadata.get("digest")
    return {
        "address": address,
        "model": info.name,
        "version": info.version,
        "digest": digest if isinstance(digest, str) else None,
        "inputs": [_signature(spec) for spec in info.inputs],
        "outputs": [_signature(spec) for spec in info.outputs],
    }


def _signature(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.datatype} {list(spec.shape)}"
