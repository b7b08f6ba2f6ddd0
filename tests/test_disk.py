"""Files and folders are there whole or not at all."""

from __future__ import annotations

import errno
import stat
from pathlib import Path
from typing import Any

import pytest

from aiaas_sdk import disk


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_is_replaced_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    disk.replace(tmp_path / "key", b"old", mode=0o600)
    disk.replace(tmp_path / "key", memoryview(b"new"), mode=0o600)
    assert (tmp_path / "key").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert names(tmp_path) == {"key"}


def test_a_file_that_cannot_be_written_whole_stays_what_it_was(tmp_path: Path) -> None:
    disk.replace(tmp_path / "key", b"old")
    nothing: Any = None
    with pytest.raises(TypeError):
        disk.replace(tmp_path / "key", nothing)
    assert (tmp_path / "key").read_bytes() == b"old"
    assert names(tmp_path) == {"key"}


def test_a_new_file_takes_no_others_place(tmp_path: Path) -> None:
    disk.new_file(tmp_path / "key", b"first")
    with pytest.raises(FileExistsError):
        disk.new_file(tmp_path / "key", b"second")
    assert (tmp_path / "key").read_bytes() == b"first"


def test_a_folder_is_seen_when_it_is_whole(tmp_path: Path) -> None:
    with disk.new_folder(tmp_path / "1", ".saving-") as folder:
        disk.new_file(folder / "weights", b"all")
        assert not (tmp_path / "1").exists()
        assert folder.name.startswith(".saving-")
    assert (tmp_path / "1" / "weights").read_bytes() == b"all"
    assert names(tmp_path) == {"1"}


def filled(folder: Path, data: bytes) -> None:
    with disk.new_folder(folder, ".saving-") as hidden:
        disk.new_file(hidden / "weights", data)


def test_a_folder_that_cannot_be_filled_leaves_nothing(tmp_path: Path) -> None:
    nothing: Any = None
    with pytest.raises(TypeError):
        filled(tmp_path / "1", nothing)
    assert names(tmp_path) == set()


def test_a_folder_takes_no_others_place(tmp_path: Path) -> None:
    filled(tmp_path / "1", b"first")
    with pytest.raises(OSError) as caught:  # noqa: PT011  # two numbers, one per system
        filled(tmp_path / "1", b"second")
    assert caught.value.errno in (errno.ENOTEMPTY, errno.EEXIST)
    assert (tmp_path / "1" / "weights").read_bytes() == b"first"
    assert names(tmp_path) == {"1"}
