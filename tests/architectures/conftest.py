"""Real rows for the tests of architectures: they ship inside of registry packages (`scripts/models.sh`)."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.peers import weights


@dataclass(frozen=True)
class Series:
    """Rows (count, steps, features), their masks (count, steps), and their classes."""

    x: np.ndarray
    mask: np.ndarray
    y: np.ndarray


@pytest.fixture(scope="session")
def vowels() -> tuple[Series, Series]:
    """JapaneseVowels: 270 and 370 utterances of nine speakers, 12 numbers a step, 7 to 29 steps."""
    folder = weights("vowels")
    return _series(folder / "JapaneseVowels_TRAIN.ts"), _series(folder / "JapaneseVowels_TEST.ts")


def _series(path: Path) -> Series:
    lines = [line.strip().split(":") for line in path.read_text().splitlines() if line[0] not in "#@"]
    x, mask = np.zeros((len(lines), 29, 12), np.float32), np.zeros((len(lines), 29), np.int64)
    for row, (*channels, _) in enumerate(lines):
        values = np.array([channel.split(",") for channel in channels], np.float32).T
        x[row, : len(values)], mask[row, : len(values)] = values, 1
    return Series(x, mask, np.array([int(line[-1]) - 1 for line in lines]))


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """1,797 handwritten digits: images (count, 1, 8, 8) from 0 to 1, and what they show."""
    table = np.loadtxt(weights("tables") / "digits.csv.gz", delimiter=",", dtype=np.float32)
    return table[:, :-1].reshape(-1, 1, 8, 8) / 16, table[:, -1].astype(np.int64)


@pytest.fixture(scope="session")
def iris() -> tuple[np.ndarray, np.ndarray]:
    """150 flowers: four lengths in cm, and which of three kinds."""
    table = np.loadtxt(weights("tables") / "iris.csv", delimiter=",", dtype=np.float32, skiprows=1)
    return table[:, :-1], table[:, -1].astype(np.int64)


@dataclass(frozen=True)
class Words:
    """English words, and how many syllables each has: 0 for one, to 4 for five or more."""

    words: list[str]
    y: np.ndarray

    def ids(self) -> np.ndarray:
        """Letters as 1 to 26, (count, 12); 0 pads."""
        found = np.zeros((len(self.words), 12), np.int64)
        for row, word in enumerate(self.words):
            found[row, : len(word)] = [ord(letter) - 96 for letter in word]
        return found


@pytest.fixture(scope="session")
def syllables() -> tuple[Words, Words]:
    """8,000 and 2,000 words of the CMU dictionary: a syllable for each sound that carries a stress mark."""
    found: dict[str, int] = {}
    for line in (weights("words") / "cmudict.dict").read_text().splitlines():
        word, *sounds = line.split("#")[0].split()
        if word.isascii() and word.isalpha() and 3 <= len(word) <= 12:
            found.setdefault(word, sum(sound[-1].isdigit() for sound in sounds))
    rows = sorted((word, min(count, 5) - 1) for word, count in found.items() if count)
    random.Random(0).shuffle(rows)
    learned, held = rows[:8000], rows[8000:10000]
    return Words(*_columns(learned)), Words(*_columns(held))


def _columns(rows: list[tuple[str, int]]) -> tuple[list[str], np.ndarray]:
    return [word for word, _ in rows], np.array([count for _, count in rows])


def naive_bayes(learned: Words, held: Words) -> float:
    """The accuracy of multinomial naive Bayes over the bag of letters, smoothed by one."""
    prior, counts = Counter(learned.y.tolist()), {kind: Counter[str]() for kind in range(5)}
    for word, kind in zip(learned.words, learned.y.tolist(), strict=True):
        counts[kind].update(word)
    totals = {kind: sum(found.values()) + 26 for kind, found in counts.items()}

    def score(word: str, kind: int) -> float:
        return math.log(prior[kind]) + sum(math.log((counts[kind][c] + 1) / totals[kind]) for c in word)

    said = [max(prior, key=lambda kind: score(word, kind)) for word in held.words]
    return float(np.mean(np.array(said) == held.y))


def nearest(learned: Series, held: Series) -> float:
    """The accuracy of the nearest neighbour among the padded series, by Euclid."""
    a, b = learned.x.reshape(len(learned.x), -1), held.x.reshape(len(held.x), -1)
    distances = (b**2).sum(1)[:, None] + (a**2).sum(1)[None] - 2 * b @ a.T
    return float(np.mean(learned.y[distances.argmin(1)] == held.y))
