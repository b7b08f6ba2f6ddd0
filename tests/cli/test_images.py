"""Images as rows of an image input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.cli.reading import read
from aiaas_sdk.records.model import ModelInfo, TensorSpec

image = pytest.importorskip("PIL.Image")


def info(shape: tuple[int, ...], datatype: str = "FP32") -> ModelInfo:
    return ModelInfo(name="m", inputs=(TensorSpec("pixels", datatype, shape),))


@pytest.fixture
def red(tmp_path: Path) -> str:
    """A red image, 4 wide and 2 high."""
    path = tmp_path / "red.png"
    image.new("RGB", (4, 2), (255, 0, 51)).save(path)
    return str(path)


@pytest.mark.parametrize(
    ("shape", "datatype", "wanted", "pixel"),
    [
        ((-1, 3, 2, 4), "FP32", (1, 3, 2, 4), [1.0, 0.0, 0.2]),
        ((-1, 2, 4, 3), "FP32", (1, 2, 4, 3), [1.0, 0.0, 0.2]),
        ((-1, 3, -1, -1), "FP16", (1, 3, 2, 4), [1.0, 0.0, 0.2]),
        ((-1, 4, 2, 4), "UINT8", (1, 4, 2, 4), [255, 0, 51, 255]),
        ((-1, 1, 2, 4), "UINT8", (1, 1, 2, 4), [82]),
        ((-1, 2, 4), "UINT8", (1, 2, 4), [82]),
        ((-1, 3, 2, 4), "BF16", (1, 3, 2, 4), [1.0, 0.0, 0.2]),
    ],
)
def test_channels_and_scale_are_the_inputs(
    red: str, shape: tuple[int, ...], datatype: str, wanted: tuple[int, ...], pixel: list[Any]
) -> None:
    found = read([red], info(shape, datatype), None)["pixels"]
    assert found.shape == wanted
    first = found[0, ..., 0, 0] if shape[1] in (1, 3, 4) else np.atleast_1d(found[0, 0, 0])
    assert first.tolist() == pytest.approx(pixel, abs=1e-3)
    assert found.dtype == {"FP32": np.float32, "FP16": np.float16, "BF16": np.float32, "UINT8": np.uint8}[datatype]


def test_a_folder_gives_its_images_in_order(tmp_path: Path) -> None:
    for level in (20, 10):
        image.new("L", (2, 2), level).save(tmp_path / f"{level}.png")
    image.new("L", (2, 2), 30).save(tmp_path / "30.JPG", "JPEG")
    (tmp_path / "notes.txt").write_text("no image")
    found = read([str(tmp_path)], info((-1, 2, 2), "UINT8"), None)["pixels"]
    assert found[:, 0, 0].tolist() == [10, 20, 30]


def test_another_size_is_refused_unless_it_is_to_be_scaled(red: str) -> None:
    wants = info((-1, 3, 8, 8))
    with pytest.raises(aiaas.InputError, match=r"is 4x2 .*wants 8x8.*--resize"):
        read([red], wants, None)
    assert read([red], wants, None, resize=True)["pixels"].shape == (1, 3, 8, 8)


def test_images_of_a_free_size_must_be_alike(red: str, tmp_path: Path) -> None:
    image.new("RGB", (3, 3)).save(tmp_path / "other.png")
    both = [red, str(tmp_path / "other.png")]
    with pytest.raises(aiaas.InputError, match="3x3"):
        read(both, info((-1, 3, -1, -1)), None)
    assert read(both, info((-1, 3, -1, -1)), None, resize=True)["pixels"].shape == (2, 3, 2, 4)


def test_a_photo_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    exif = image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.new("RGB", (4, 2)).save(tmp_path / "a.jpg", exif=exif)
    assert read([str(tmp_path / "a.jpg")], info((-1, 3, -1, -1)), None)["pixels"].shape == (1, 3, 4, 2)


def test_what_is_no_image_or_for_no_image_input_is_refused(red: str, tmp_path: Path) -> None:
    (tmp_path / "fake.png").write_text("text")
    image.new("I;16", (2, 2)).save(tmp_path / "deep.png")
    (tmp_path / "empty").mkdir()
    pixels = info((-1, 3, 2, 4))
    for paths, wants, message in (
        ([str(tmp_path / "fake.png")], pixels, "can't be read as an image"),
        ([str(tmp_path / "deep.png")], pixels, "more than 8 bits"),
        ([str(tmp_path / "empty")], pixels, "has no images"),
        ([red], info((-1, 3)), "doesn't take images"),
        ([red], info((-1, -1, -1, -1)), "doesn't take images"),
        ([red], info((-1, 3, 2, 4), "INT64"), "images are given to UINT8 and float"),
        ([red], ModelInfo(name="m"), "declares no inputs"),
    ):
        with pytest.raises(aiaas.InputError, match=message):
            read(paths, wants, None)
