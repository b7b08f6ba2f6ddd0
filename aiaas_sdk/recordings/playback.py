"""Recorded calls, played: which one answers a call."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from aiaas_sdk.errors import UnsupportedOperationError
from aiaas_sdk.recordings.calls import Asked, Recorded
from aiaas_sdk.recordings.difference import Difference, nearest

__all__ = ["BEFORE", "Miss", "Playback"]

MOST = 5
"""Differences that an error tells."""
BEFORE = frozenset(("load", "open", "ready"))
"""The calls that go before a verb. Whether one is made depends on what ran earlier in the process."""


@dataclass(frozen=True, slots=True)
class Miss:
    """A call that wasn't recorded: its error, and the contents that an error may not hold."""

    error: UnsupportedOperationError
    values: tuple[str, ...]


class Playback:
    """The calls of one recording. Equal calls are answered in the order of the file, and then the last one repeats.

    Safe across threads.
    """

    def __init__(self, recorded: Sequence[Recorded], source: str) -> None:
        self.recorded, self.source = recorded, source
        self.misses: list[Miss] = []
        self._by_key: dict[Hashable, list[Recorded]] = defaultdict(list)
        for call in recorded:
            self._by_key[call.asked.key()].append(call)
        self._played: Counter[Hashable] = Counter()
        self._guard = threading.Lock()
        self._over = False

    def end(self) -> None:
        """Answer nothing any more."""
        self._over = True

    @property
    def addresses(self) -> list[str]:
        """The models that were called, in the order of the file."""
        return list(dict.fromkeys(call.asked.address for call in self.recorded))

    def unused(self) -> list[Recorded]:
        """The recorded calls of verbs that nobody has asked for."""
        with self._guard:
            played = dict(self._played)
        left = [call for key, calls in self._by_key.items() for call in calls[played.get(key, 0) :]]
        return sorted((call for call in left if call.asked.verb not in BEFORE), key=lambda call: call.line)

    def holds(self, asked: Asked) -> bool:
        return asked.key() in self._by_key

    def answer(self, asked: Asked) -> Recorded:
        """The recorded call that answers this one.

        Raises:
            UnsupportedOperationError: there is none; it says how the nearest one differs.
        """
        if self._over:
            raise UnsupportedOperationError(
                f"{asked.address} was loaded while {self.source} was replayed, and that is over",
                hint="Load it anew, or replay a recording here too",
            )
        key = asked.key()
        with self._guard:
            if (calls := self._by_key.get(key)) is not None:
                place = self._played[key]
                self._played[key] += 1
                return calls[min(place, len(calls) - 1)]
        miss = self._missed(asked)
        self.misses.append(miss)
        raise miss.error

    def left(self, call: Recorded) -> UnsupportedOperationError:
        """The error for who reads on in a stream that its reader left when it was recorded."""
        count = len(call.outcome.deltas)
        error = UnsupportedOperationError(
            f"{self.source} line {call.line} is a stream that was left after {count} delta{'' if count == 1 else 's'}, "
            "and more of it was asked for",
            address=call.asked.address,
            hint="Record it again if it is meant to be read on",
        )
        self.misses.append(Miss(error, ()))
        return error

    def _missed(self, asked: Asked) -> Miss:
        near = nearest(asked, self.recorded)
        reason = self._why_none(asked)
        if near is not None:
            reason = f"The nearest is line {near[0].line}: {_listed(near[1])}"
        error = UnsupportedOperationError(
            f"{self.source} has no call like this: {asked}",
            address=asked.address,
            hint=f"{reason}. Record it again if the call is meant",
        )
        differing = near[1] if near is not None else []
        shown = (f"{d.text}: {d.values[0]!r} here, {d.values[1]!r} recorded" for d in differing if d.values)
        return Miss(error, tuple(shown))

    def _why_none(self, asked: Asked) -> str:
        verbs = sorted({call.asked.verb for call in self.recorded if call.asked.address == asked.address})
        if verbs:
            return f"Of {asked.address} it has {', '.join(verbs)}"
        return f"It has calls of {', '.join(self.addresses)}" if self.recorded else "It is empty or isn't there"


def _listed(differences: Sequence[Difference]) -> str:
    told = [difference.text for difference in differences[:MOST]]
    return "; ".join(told) + (f"; and {len(differences) - MOST} more" if len(differences) > MOST else "")
