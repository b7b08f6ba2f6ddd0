"""What local `predict` costs over calling the module: the digits CNN, numpy to numpy, batches of 1 and 64.

Both run in turns in one process, on one thread of torch's; a figure is the median of the rounds' differences or
ratios, of this thread's CPU time, which other processes on the machine disturb less.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from turns import compared, seconds

import aiaas_sdk as aiaas
from aiaas_sdk.architectures.cnn import CNN

ROUNDS = 300


class DigitsCNN(CNN):
    """The digits network under a class that nobody registered, so that it is saved as a program."""


def main() -> None:
    torch.set_num_threads(1)
    module = DigitsCNN().eval()
    images = np.random.default_rng(0).normal(size=(64, 1, 28, 28)).astype(np.float32)

    def raw(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(x)).numpy()

    with tempfile.TemporaryDirectory() as folder:
        address = aiaas.save(module, Path(folder) / "digits", example=images[:1])
        with aiaas.load(address) as model:
            print(f"{'local predict, digits CNN':32}{'raw, us':>10}{'over, us':>10}{'ratio':>8}")
            for rows in (1, 64):
                x = images[:rows]
                assert np.allclose(model.predict(x).array, raw(x), atol=1e-6)  # a program sums in an order of its own
                times = 20 if rows == 1 else 2
                base, over, ratio = compared(lambda x=x: model.predict(x), lambda x=x: raw(x), ROUNDS, times)
                print(f"{'batch ' + str(rows):32}{1e6 * base:>10.0f}{1e6 * over:>+10.0f}{ratio:>8.3f}")
        with aiaas.load("echo:?x=FP32[-1,1,28,28]") as echo:
            x = images[:1]
            over = statistics.median(seconds(lambda: echo.predict(x), 100) for _ in range(ROUNDS))
            print(f"{'echo, the SDK alone':32}{'':>10}{1e6 * over:>+10.0f}")


if __name__ == "__main__":
    main()
