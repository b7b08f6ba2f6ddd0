"""What works today: one model, called plainly and awaited, and what it says to input that doesn't fit."""

from __future__ import annotations

import asyncio

import numpy as np

import aiaas_sdk as aiaas

ADDRESS = "echo:?x=FP32[-1,3]"


async def awaited(x: np.ndarray) -> aiaas.Prediction:
    async with aiaas.load_async(ADDRESS) as model:
        return await model.predict(x)


def main() -> None:
    x = np.array([[0.1, 2.0, 0.3], [3.0, 0.2, 0.1]], np.float32)
    with aiaas.load(ADDRESS, timeout=5) as model:
        here = model.predict(x)
        there = asyncio.run(awaited(x))
        print(f"{'':8} {'rows':>4} {'best of each row':>20} {'microseconds':>14}")
        for name, pred in (("plain", here), ("awaited", there)):
            best = " ".join(label for [(label, _)] in pred.top(1))
            print(f"{name:8} {pred.usage.rows:>4} {best:>20} {pred.timing.total * 1e6:>14.0f}")
        assert np.array_equal(here.array, there.array)
        try:
            model.predict(x.astype(np.float64))
        except aiaas.InputError as error:
            print(f"\nbad input: {error}")


if __name__ == "__main__":
    main()
