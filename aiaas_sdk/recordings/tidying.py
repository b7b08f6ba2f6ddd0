"""Which calls a file keeps, and in which order, so that recording again changes what has changed and nothing else."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence

from aiaas_sdk.recordings import lines
from aiaas_sdk.recordings.calls import Recorded

__all__ = ["ordered", "telling"]


def telling(calls: Sequence[Recorded]) -> list[Recorded]:
    """The calls that say something. Left out are loads that all succeeded, and equal outcomes at the end of equal
    calls, which playing repeats anyway.
    """
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for place, call in enumerate(calls):
        groups[call.asked.key()].append(place)
    left: set[int] = set()
    for places in groups.values():
        while len(places) > 1 and lines.encode(calls[places[-1]]) == lines.encode(calls[places[-2]]):
            places.pop()
        if calls[places[0]].asked.verb != "load" or any(calls[place].outcome.error for place in places):
            left.update(places)
    return [calls[place] for place in sorted(left)]


def ordered(calls: Sequence[Recorded], old: Sequence[Recorded]) -> list[Recorded]:
    """Calls that were there keep their old order, the new ones come last: threads would make any order."""
    places = {which: place for place, which in enumerate(_numbered(old))}
    numbered = zip(_numbered(calls), calls, strict=True)
    return [call for _, call in sorted(numbered, key=lambda pair: places.get(pair[0], len(places)))]


def _numbered(calls: Sequence[Recorded]) -> Iterator[tuple[Hashable, int]]:
    """For each call its key, and which of the calls with this key it is."""
    seen: Counter[Hashable] = Counter()
    for call in calls:
        key = call.asked.key()
        seen[key] += 1
        yield key, seen[key]
