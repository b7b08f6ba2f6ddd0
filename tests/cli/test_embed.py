"""`aiaas embed`: texts as vectors, shown and written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import aiaas_sdk as aiaas
from aiaas_sdk.cli.app import app


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str, code: int = 0, given: str | bytes | None = None) -> Any:
    result = CliRunner().invoke(app, ["embed", *arguments], input=given)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def vectors(*texts: str) -> np.ndarray:
    with aiaas.load("echo:") as model:
        found: np.ndarray = model.embed(texts).array
    return found


def test_a_table_shows_how_each_vector_begins() -> None:
    lines = run("echo:", "ab", "c" * 50).stdout.splitlines()
    assert lines[0].split() == ["text", "dimensions", "vector"]
    assert lines[1].split() == ["ab", "26", "0.7071", "0.7071", "0.0000", "0.0000", "..."]
    assert lines[2].startswith("c" * 37 + "...  26")
    assert run("echo:", "ab", "--dimensions", "2").stdout.splitlines()[1].split() == ["ab", "2", "0.7071", "0.7071"]


def test_a_document_holds_them_in_full() -> None:
    found = json.loads(run("echo:", "ab", "c", "--json").stdout)
    assert np.array_equal(np.array(found.pop("embeddings"), np.float32), vectors("ab", "c"))
    about = {"model": "echo", "version": "1", "backend": "echo"}
    assert found == {**about, "dimensions": 26, "input_tokens": 2, "output": None}


def test_a_file_holds_them() -> None:
    assert run("echo:", "ab", "c", "-o", "v.npy").stdout == ""
    assert np.array_equal(np.load("v.npy"), vectors("ab", "c"))
    run("echo:", "ab", "c", "-o", "v.npz")
    with np.load("v.npz") as archive:
        assert np.array_equal(archive["embeddings"], vectors("ab", "c"))
    found = json.loads(run("echo:", "ab", "c", "-o", "v.json", "--json").stdout)
    assert (found["embeddings"], found["output"]) == (None, "v.json")
    assert np.shape(json.loads(Path("v.json").read_text())["embeddings"]) == (2, 26)


def test_the_lines_of_stdin_are_texts() -> None:
    run("echo:", "-", "-o", "v.npy", given="ab\r\n\nc\u2028d\n")
    assert np.array_equal(np.load("v.npy"), vectors("ab", "", "c\u2028d"))


@pytest.mark.parametrize(
    ("arguments", "given", "code", "words"),
    [
        (["echo:", "-"], "", 2, "stdin holds no text"),
        (["echo:", "-"], b"\xff", 2, "UTF-8"),
        (["echo:", "x", "-o", "v.txt"], None, 2, "no kind"),
        (["openai+http://127.0.0.1:9/v1#x", "x"], None, 4, "can't connect"),
        (["echo:"], None, 2, ""),
    ],
)
def test_an_error_is_told_and_has_a_code(arguments: list[str], given: Any, code: int, words: str) -> None:
    result = run(*arguments, code=code, given=given)
    assert words in result.stderr
    assert result.stdout == ""
