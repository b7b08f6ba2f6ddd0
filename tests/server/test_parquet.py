"""Parquet at `/invocations`: the same question as in any other form, and no file takes the server's memory or life."""

from __future__ import annotations

import importlib.util
import io
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from aiaas_sdk.errors import InputError
from aiaas_sdk.records.model import TensorSpec
from aiaas_sdk.server import serve_in_thread
from aiaas_sdk.server.errors import RefusedError
from aiaas_sdk.server.parquet import decode
from tests.server.conftest import Client
from tests.server.process import Server

PATH = "/invocations"
KINDS = ("application/x-parquet", "application/vnd.apache.parquet")
AS_PARQUET = {"Content-Type": KINDS[0]}
LIMIT = 8 * 1024**2
X = (TensorSpec("x", "FP32", (-1, 3)),)
S = (TensorSpec("s", "BYTES", (-1,)),)
TABLE = {"a": [1.0, 4.0], "b": [2, 5], "c": [3.0, None]}


def written(columns: dict[str, Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    parquet.write_table(pa.table(columns), stream, **options)
    return stream.getvalue()


@pytest.fixture(scope="module")
def one() -> Iterator[Client]:
    with serve_in_thread(["one=echo:?x=FP32[-1,3]"]) as url:
        client = Client(url)
        yield client
        client.connection.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "body",
    [
        written(TABLE),
        written(TABLE, compression="zstd", data_page_version="2.0", use_dictionary=False),
        written(TABLE, compression="gzip", row_group_size=1, write_page_checksum=True),
        written({"x": [[1, 2, 3], [4.0, 5, None]]}),
        written({name: pa.array(np.array(TABLE[name], np.float16)) for name in TABLE}),
    ],
)
def test_it_is_the_same_question(one: Client, kind: str, body: bytes) -> None:
    answer = one("POST", PATH, body, {"Content-Type": kind})
    assert (answer.status, answer.document) == (200, {"predictions": [[1, 2, 3], [4, 5, None]]})
    assert one("POST", PATH, body, {"Content-Type": kind, "Accept": "text/csv"}).body.startswith(b"1.0,2.0,3.0\n")


def test_columns_are_inputs_by_name_and_texts_are_texts(serving: Any) -> None:
    client = serving("ns=echo:?n=INT64[-1]&s=BYTES[-1]")
    body = written({"s": ["ü", "v", "ü"], "n": pa.array([1, 2, 2**62], pa.uint64())})
    answer = client("POST", PATH, body, AS_PARQUET)
    rows = [{"s": "ü", "n": 1}, {"s": "v", "n": 2}, {"s": "ü", "n": 2**62}]
    assert answer.document == {"predictions": rows}
    body = written({"s": pa.array([b"\xff", b""]).dictionary_encode(), "n": [1, 2]})
    assert client("POST", PATH, body, AS_PARQUET).document["predictions"][0]["s"] == {"b64": "/w=="}


def test_an_index_of_pandas_is_left_out() -> None:
    table = pa.table({**TABLE, "__index_level_0__": ["u", "v"]})
    table = table.replace_schema_metadata({"pandas": '{"index_columns": ["__index_level_0__"]}'})
    stream = io.BytesIO()
    parquet.write_table(table, stream)
    assert decode(stream.getvalue(), X, limit=LIMIT)["x"].shape == (2, 3)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"a": [1.5], "b": [1], "c": [None]}, "INT32"),
        ({"a": [2**31], "b": [1], "c": [1]}, "INT32"),
        ({"a": ["1"], "b": ["2"], "c": ["3"]}, "INT32"),
        ({"a": pa.array([1], pa.date32()), "b": [1], "c": [1]}, "INT32"),
        ({"a": [{"q": 1}], "b": [{"q": 1}], "c": [{"q": 1}]}, "INT32"),
        ({"s": [["a"], ["b"]]}, "lists"),
        ({}, "no columns"),
    ],
)
def test_what_no_other_form_may_bring_is_refused_here_too(columns: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        decode(written(columns), [TensorSpec("x", "INT32", (-1, 3))], limit=LIMIT)


def test_without_pyarrow_it_is_said_what_to_install(one: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyarrow" else find(name))
    answer = one("POST", PATH, written(TABLE), AS_PARQUET)
    assert answer.status == 415
    assert 'pip install "aiaas-sdk[parquet]"' in answer.document["message"]
    assert one("POST", PATH, {"instances": [[1, 2, 3]]}).status == 200


# ---------------------------------------------------------------- what it may become
def _rows() -> bytes:
    return written(dict.fromkeys("abc", np.zeros(2_000_000, np.float32)), compression="zstd")


def _run_in_a_list() -> bytes:
    nothing = np.zeros(2_000_000, np.float32)
    return written({"x": pa.ListArray.from_arrays([0, len(nothing)], nothing)})


def _packed_page() -> bytes:
    return written({"s": ["x" * (9 * 1024**2)]}, compression="zstd", use_dictionary=False)


def _text_a_thousand_times() -> bytes:
    places = pa.array([0] * 1000, pa.int32())
    return written({"s": pa.DictionaryArray.from_arrays(places, pa.array(["y" * 1024**2]))}, compression="zstd")


@pytest.mark.parametrize(
    ("made", "specs", "words"),
    [
        (_rows, X, "3 columns of 2000000 rows"),
        (_run_in_a_list, X, "column 'x.list.element'"),
        (_packed_page, S, "column 's'"),
        (_text_a_thousand_times, S, "texts of 1048576000 bytes"),
    ],
)
def test_a_small_file_that_is_a_large_table_is_refused(made: Any, specs: Any, words: str) -> None:
    body = made()
    assert len(body) < 200_000
    with pytest.raises(RefusedError, match=words) as refused:
        decode(body, specs, limit=LIMIT)
    assert refused.value.status == 413


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (written({"s": ["a"] * 99}, use_dictionary=False, column_encoding={"s": "DELTA_BYTE_ARRAY"}), "DELTA_BYTE"),
        (written({"s": pa.array([[[["a"]]]]), "t": pa.array([1])}), "lists"),
        (b"", "isn't Parquet"),
        (b"PAR1" * 10, "isn't Parquet"),
        (written(TABLE)[:-1], "isn't Parquet"),
        (written(TABLE)[:40] + written(TABLE)[44:], "isn't right|can't be read"),
    ],
)
def test_what_cant_be_weighed_isnt_read(body: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        decode(body, S, limit=LIMIT)


@pytest.mark.slow
def test_files_with_changed_bytes_end_no_process_and_take_no_memory() -> None:
    """Of the file's end, too: pyarrow's own description of it aborts the process."""
    files = [
        written(TABLE),
        written({"s": ["a", "bb", "ü"] * 50}),
        written({"x": [[1, 2, 3], [4, 5, 6]] * 20}, data_page_version="2.0", compression="zstd"),
    ]
    chance = random.Random(7)
    server = Server("one=echo:?x=FP32[-1,3]")
    try:
        assert server.ask(PATH, files[0], AS_PARQUET)[0] == 200
        before = server.memory()
        for _ in range(300):
            body = bytearray(chance.choice(files))
            for _ in range(chance.randint(1, 4)):
                place = chance.randrange(len(body))
                body[place] = chance.choice([chance.randrange(256), 0, 255, body[place] ^ (1 << chance.randrange(8))])
            assert server.ask(PATH, bytes(body), AS_PARQUET)[0] in (200, 400, 413)
        assert server.memory() - before < 100
    finally:
        server.close()
