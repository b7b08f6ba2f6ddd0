"""The main job on real data: train a small CNN, save it, serve it, and call it here and there with the same lines.

make demo               5,000 digits, a minute or two
make demo DATA=full     all of MNIST, some minutes

Without make: pip install ".[torch,serve,cli,plots]", then pip install --no-deps -r examples/requirements.txt.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import digits_data
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

import aiaas_sdk as aiaas

OUTPUT = Path("demo-output")


# ---------------------------------------------------------------- what a user has: a module and a loop
class DigitsCNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(1600, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


def train(data: digits_data.Digits, epochs: int) -> DigitsCNN:
    torch.manual_seed(0)
    module = DigitsCNN()
    optimizer = torch.optim.Adam(module.parameters())
    images, digits = torch.from_numpy(data.images), torch.from_numpy(data.digits)
    for epoch in range(epochs):
        begun, total = time.perf_counter(), 0.0
        for rows in torch.randperm(len(images)).split(32):
            loss = nn.functional.cross_entropy(module(images[rows]), digits[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        seconds = time.perf_counter() - begun
        print(f"  epoch {epoch + 1:2} of {epochs}: loss {total / len(images):.4f} in {seconds:.1f} s", flush=True)
    return module


# ---------------------------------------------------------------- the same lines, here and there
class Result(NamedTuple):
    logits: np.ndarray
    digits: list[str]
    median: float
    """Seconds for one image."""
    rate: float
    """Rows a second, in batches of 250."""


def evaluate(address: str, images: np.ndarray) -> Result:
    with aiaas.load(address, timeout=60) as model:
        begun = time.perf_counter()
        answers = [model.predict(images[start : start + 250]) for start in range(0, len(images), 250)]
        rate = len(images) / (time.perf_counter() - begun)
        logits = np.concatenate([answer["logits"] for answer in answers])
        digits = [label for answer in answers for [(label, _)] in answer.top(1)]
        return Result(logits, digits, _median(lambda: model.predict(images[:1])), rate)


def _median(call: Callable[[], object]) -> float:
    times = []
    for _ in range(50):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return float(np.median(times))


# ---------------------------------------------------------------- the second process
@contextmanager
def served(models: Path) -> Iterator[str]:
    """`aiaas serve` over a folder of models, as another process; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "aiaas_sdk.cli", "serve", str(models), "--port", str(port)]
    with (OUTPUT / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        _await(process, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _await(process: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(600):
        if process.poll() is not None:
            sys.exit(f"aiaas serve ended: {(OUTPUT / 'serve.log').read_text()[-2000:]}")
        try:
            with aiaas.load(f"http://127.0.0.1:{port}/v2/models/digits", retry=None, timeout=5) as model:
                model.wait_ready(5)
                return
        except (aiaas.ConnectError, aiaas.ModelNotReadyError):
            time.sleep(0.1)
    sys.exit("aiaas serve didn't answer within a minute")


# ---------------------------------------------------------------- what is shown
def table(here: Result, there: Result, wanted: np.ndarray) -> str:
    def right(result: Result) -> str:
        return f"{100 * np.mean(np.array(result.digits, int) == wanted):.1f} %"

    lines = [
        ("", "here", "there"),
        ("accuracy on held-out digits", right(here), right(there)),
        ("median time for one image", f"{1e3 * here.median:.2f} ms", f"{1e3 * there.median:.2f} ms"),
        ("rows a second", f"{here.rate:,.0f}", f"{there.rate:,.0f}"),
        ("largest difference of a logit", "", f"{np.abs(here.logits - there.logits).max():.1e}"),
    ]
    return "\n".join(f"{name:30}{left:>12}{other:>12}" for name, left, other in lines)


def picture(path: Path, data: digits_data.Digits, answers: list[str]) -> None:
    """Ten of each kind where there are as many: digits with what the model said; a wrong answer is red."""
    rows = np.concatenate([np.flatnonzero(data.digits == digit)[:6] for digit in range(10)])
    size, foot = 56, 18
    sheet = Image.new("RGB", (10 * size, 6 * (size + foot)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, row in enumerate(rows):
        left, top = (place // 6) * size, (place % 6) * (size + foot)
        pixels = Image.fromarray((255 - 255 * data.images[row, 0]).astype(np.uint8)).resize((size, size))
        sheet.paste(pixels, (left, top))
        right = answers[row] == str(data.digits[row])
        draw.text((left + size // 2 - 4, top + size), answers[row], fill="black" if right else "red", font_size=14)
    sheet.save(path)


def main() -> None:
    OUTPUT.mkdir(exist_ok=True)
    whole = os.environ.get("DATA") == "full"
    data, held_out = digits_data.full() if whole else digits_data.small()
    print(f"{len(data.images):,} digits to train with, {len(held_out.images):,} held out")
    module = train(data, epochs=3 if whole else 12)

    labels = [str(digit) for digit in range(10)]
    here = aiaas.save(module, OUTPUT / "models" / "digits", example=data.images[:1], labels=labels)
    with served(OUTPUT / "models") as server:
        there = f"{server}/v2/models/digits"
        print(f"\nhere:  {here}\nthere: {there}\n")
        results = [evaluate(address, held_out.images) for address in (here, there)]
    print(table(*results, held_out.digits))
    picture(OUTPUT / "digits.png", held_out, results[1].digits)
    print(f"\npicture: {OUTPUT / 'digits.png'}")

    accuracy = np.mean(np.array(results[1].digits, int) == held_out.digits)
    if accuracy < (0.985 if whole else 0.95) or np.abs(results[0].logits - results[1].logits).max() > 1e-6:
        sys.exit("the demo fell short: see the table")


if __name__ == "__main__":
    main()
