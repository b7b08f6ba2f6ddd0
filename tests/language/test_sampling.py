"""How one token is drawn: each option by the shares in which tokens come."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from aiaas_sdk.backends.torch.sampling import Sampler, logprobs_of

SHARES = [0.05, 0.5, 0.3, 0.15]
LOGITS = torch.tensor(SHARES).log() + 3.0
DRAWS = 4000


def drawn(logits: torch.Tensor = LOGITS, **options: Any) -> list[float]:
    """The share of each token."""
    sampler = Sampler({"seed": 1, **options})
    counts = [0] * len(logits)
    for _ in range(DRAWS):
        counts[sampler.draw(logits)] += 1
    return [count / DRAWS for count in counts]


def near(found: list[float], wanted: list[float]) -> bool:
    """Within four standard deviations."""
    return all(abs(f - w) <= 4 * math.sqrt(w * (1 - w) / DRAWS) + 1e-9 for f, w in zip(found, wanted, strict=True))


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"temperature": 1.0}, SHARES),
        ({}, SHARES),
        ({"temperature": 0.5}, [s**2 / sum(x**2 for x in SHARES) for s in SHARES]),
        ({"temperature": 2.0}, [s**0.5 / sum(x**0.5 for x in SHARES) for s in SHARES]),
        ({"top_k": 2}, [0, 0.625, 0.375, 0]),
        ({"top_k": 10}, SHARES),
        ({"top_p": 0.5}, [0, 1, 0, 0]),
        ({"top_p": 0.6}, [0, 0.625, 0.375, 0]),
        ({"top_p": 0.96}, SHARES),
        ({"top_p": 1.0}, SHARES),
        ({"top_k": 3, "top_p": 0.8}, [0, 0.625, 0.375, 0]),
        ({"temperature": 0}, [0, 1, 0, 0]),
        ({"temperature": 1e-5}, [0, 1, 0, 0]),
        ({"temperature": 1e-40}, [0, 1, 0, 0]),
    ],
)
def test_shares(options: dict[str, Any], wanted: list[float]) -> None:
    found = drawn(**options)
    assert near(found, wanted)
    assert all(f == 0 for f, w in zip(found, wanted, strict=True) if w == 0)


def test_top_p_beyond_the_few_likeliest() -> None:
    """Shares so even that most tokens are needed to reach it."""
    logits = torch.zeros(2000)
    sampler = Sampler({"seed": 2, "top_p": 0.9})
    assert len({sampler.draw(logits) for _ in range(3000)}) > 1000


@pytest.mark.parametrize("options", [{}, {"top_p": 0.99}, {"top_k": 4}])
def test_what_is_ruled_out_is_never_drawn(options: dict[str, Any]) -> None:
    logits = torch.tensor([-math.inf, 1.0, -math.inf, 0.0])
    assert {Sampler({"seed": s, **options}).draw(logits) for s in range(200)} == {1, 3}


def test_without_options_the_likeliest_and_with_a_wish_a_draw() -> None:
    assert Sampler({}).greedy
    assert Sampler({"max_tokens": 3, "logprobs": 2}).greedy
    assert Sampler({"temperature": 0, "seed": 1}).greedy
    for wish in ({"seed": 1}, {"top_p": 0.9}, {"top_k": 5}, {"n": 2}):
        assert Sampler(wish).temperature == 1


def test_seeds() -> None:
    def run(seed: int | None, number: int = 0) -> list[int]:
        sampler = Sampler({"temperature": 1.0} | ({} if seed is None else {"seed": seed}), number)
        return [sampler.draw(torch.zeros(1000)) for _ in range(8)]

    assert run(1) == run(1)
    assert len({tuple(run(seed)) for seed in (1, 2, -1, 2**32 + 1, 2**63 - 1)}) == 5
    assert run(1, 0) != run(1, 1)
    assert run(None) != run(None)


def test_logprobs() -> None:
    own, best = logprobs_of(LOGITS, 3, 2)
    assert own == pytest.approx(math.log(0.15), abs=1e-6)
    assert [token for token, _ in best] == [1, 2]
    assert [value for _, value in best] == pytest.approx([math.log(0.5), math.log(0.3)], abs=1e-6)
    assert logprobs_of(LOGITS, 0, 0)[1] == []
