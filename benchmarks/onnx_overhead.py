"""What `onnx:` costs over onnxruntime by hand: the digits CNN, exported, numpy to numpy, batches of 1 and 64.

Both sessions have one thread and run in turns in one process; a figure is the median of the rounds' differences or
ratios, of this thread's CPU time, which other processes on the machine disturb less.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from aiaas_onnx import export
from aiaas_onnx.runtime import onnxruntime
from turns import compared, seconds

import aiaas_sdk as aiaas
from aiaas_sdk.architectures.cnn import CNN

ROUNDS = 300


def _by_hand(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main() -> None:
    torch.set_num_threads(1)
    images = np.random.default_rng(0).normal(size=(64, 1, 28, 28)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        bundle = aiaas.save(CNN().eval(), Path(folder) / "digits", example=images[:1])
        path = Path(folder) / "digits.onnx"
        address = export(bundle, path).address
        session = _by_hand(path)
        name = session.get_inputs()[0].name
        # as many calls at once as there are cores: a thread for each
        with aiaas.load(address, concurrency=64) as model, aiaas.load(bundle) as eager:
            print(f"{'onnx:, digits CNN':32}{'raw, us':>10}{'over, us':>10}{'ratio':>8}{'torch:, us':>12}")
            for rows, times in ((1, 20), (64, 2)):
                x = images[:rows]

                def ours(x: np.ndarray = x) -> object:
                    return model.predict(x)

                def raw(x: np.ndarray = x) -> object:
                    return session.run(None, {name: x})

                assert np.array_equal(model.predict(x).array, session.run(None, {name: x})[0])
                base, over, ratio = compared(ours, raw, ROUNDS, times)
                slow = statistics.median(seconds(lambda x=x: eager.predict(x), times) for _ in range(50))
                print(f"{f'batch {rows}':32}{1e6 * base:>10.0f}{1e6 * over:>+10.1f}{ratio:>8.3f}{1e6 * slow:>12.0f}")


if __name__ == "__main__":
    main()
