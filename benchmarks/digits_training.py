"""The mission's CNN on all of MNIST: 10 epochs with batches of 32, of each optimizer asked for.

    python benchmarks/digits_training.py [adam] [rmsprop momentum nesterov adagrad sgd adamw gd]

Accuracy is that of the 10,000 test images after each epoch. It takes a minute an epoch on one thread.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch

import aiaas_sdk as aiaas

EPOCHS = 10


def main(optimizers: list[str]) -> None:
    torch.set_num_threads(1)
    sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
    import digits_data

    train, test = digits_data.full()
    labels = list("0123456789")
    with tempfile.TemporaryDirectory() as folder:
        address = f"torch:{folder}/digits"
        with aiaas.create(address, architecture="cnn", labels=labels, seed=0) as model:
            for optimizer in optimizers:
                begun = time.process_time()
                run = model.fit(
                    train.images,
                    train.digits,
                    epochs=EPOCHS,
                    optimizer=optimizer,
                    validation=(test.images, test.digits),
                    seed=0,
                )
                for event in run.events():
                    if event["type"] == "epoch":
                        found = event["metrics"]
                        print(
                            f"{optimizer:10} epoch {event['epoch']:2}  loss {found['loss']:.4f}  "
                            f"test {found['validation_accuracy']:.4f}  {time.process_time() - begun:.0f} CPU s",
                            flush=True,
                        )
                run.result().close()


if __name__ == "__main__":
    main(sys.argv[1:] or ["adam"])
