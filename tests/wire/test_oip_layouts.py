"""A head that was understood once is understood again as it was, and nothing else is taken for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from aiaas_sdk.errors import InputError
from aiaas_sdk.tensors import Tensor
from aiaas_sdk.wire import heads, oip


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    heads.layouts.clear()
    yield
    heads.layouts.clear()


def request(values: Any, **options: Any) -> tuple[dict[str, str], bytes]:
    inputs = {
        "x": Tensor("FP32", np.array([values], np.float32)),
        "n": Tensor("INT64", np.arange(len(values), dtype=np.int64)),
    }
    message = oip.encode_request(inputs, outputs=None, binary=True, **options)
    return message.headers, b"".join(message.body)


def test_the_second_request_of_a_kind_has_its_own_tensors() -> None:
    first, second = (oip.decode_request(*request(values, parameters={"k": 7})) for values in ([1, 2, 3], [4, 5, 6]))
    assert len(heads.layouts) == 1
    assert first.inputs["x"].array.tolist() == [[1, 2, 3]]
    assert second.inputs["x"].array.tolist() == [[4, 5, 6]]
    assert second.inputs["n"].array.tolist() == [0, 1, 2]
    assert (second.binary_default, second.speaks_binary, second.parameters) == (True, True, {"k": 7})
    assert {name: (t.datatype, t.shape) for name, t in first.inputs.items()} == {
        name: (t.datatype, t.shape) for name, t in second.inputs.items()
    }


@pytest.mark.parametrize("cut", [b"", b"12345678"])
def test_a_known_head_with_too_few_or_too_many_bytes_is_refused(cut: bytes) -> None:
    headers, body = request([1, 2, 3])
    oip.decode_request(headers, body)
    wrong = body + cut if cut else body[:-4]
    with pytest.raises(InputError, match=r"left over|needs"):
        oip.decode_request(headers, wrong)


def test_an_id_and_the_time_that_is_left_are_each_requests_own() -> None:
    asked = [("a", 5_000), ("b", 70), (None, 3), ("c", None), ("b", 1), (None, 9), ("d", None)]
    for id, timeout in asked:
        found = oip.decode_request(*request([1, 2], id=id, parameters={"timeout": timeout, "k": 1}))
        expected = {"k": 1} if timeout is None else {"timeout": timeout, "k": 1}
        assert (found.id, found.parameters) == (id, expected)
        assert found.inputs["x"].array.tolist() == [[1, 2]]
    assert len(heads.layouts) == 3  # with both, without an id, without a timeout


HEADS = [
    b'{"id":"%b","parameters":{"timeout":%b,"k":1},"inputs":[I]}',
    b'{"id": "%b", "parameters": {"timeout": %b}, "inputs": [I]}',
    b'{"id":"%b","inputs":[I],"parameters":{"timeout":%b}}',
    b'{"parameters":{"id":"%b","timeout":%b},"inputs":[I]}',
    b'{"id":"%b","id":"b","parameters":{"timeout":%b},"inputs":[I]}',
]
TIMES = (b"1", b"0", b"20", b"01", b"1.0", b"-1", b"1e3", b"true", b"9" * 20)
INPUT = b'{"name":"x","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}'


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("id", [b"a", b"", b"b c", b'\\"', b"\\u0041", "é".encode(), b"\x7f", b"\0", b"\xff"])
def test_a_head_is_read_as_it_is_whatever_came_before_it(head: bytes, id: bytes) -> None:
    def read(text: bytes) -> Any:
        text = text.replace(b"I", INPUT)
        try:
            found = oip.decode_request({oip.HEADER_LENGTH: str(len(text))}, text + np.float32(2.5).tobytes())
        except InputError as error:
            return str(error)
        return found.id, dict(found.parameters), found.inputs["x"].array.tolist()

    alone = []
    for number in TIMES:
        heads.layouts.clear()
        alone.append(read(head % (id, number)))
    for first in TIMES:
        heads.layouts.clear()
        read(head % (b"a", first))
        assert [read(head % (id, number)) for number in TIMES] == alone


def test_values_that_must_be_looked_at_are_looked_at_each_time() -> None:
    good, bad = (
        oip.encode_request({"b": Tensor("BOOL", np.array(values, np.uint8).view(bool))}, outputs=None, binary=True)
        for values in ([0, 1], [0, 1])
    )
    oip.decode_request(good.headers, b"".join(good.body))
    with pytest.raises(InputError, match="BOOL"):
        oip.decode_request(bad.headers, bad.body[0] + b"\x00\x07")


def test_tensors_in_json_are_read_each_time() -> None:
    entries = [
        {"name": "a", "datatype": "FP32", "shape": [1], "data": [1.5]},
        {"name": "b", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}},
    ]
    head = json.dumps({"inputs": entries}).encode()
    for _ in range(2):
        found = oip.decode_request({oip.HEADER_LENGTH: str(len(head))}, head + np.float32(2.5).tobytes())
        assert [float(tensor.array[0]) for tensor in found.inputs.values()] == [1.5, 2.5]


def test_few_heads_are_remembered() -> None:
    for size in range(300):
        oip.decode_request(*request([0.0] * (size + 1)))
    assert 0 < len(heads.layouts) <= 256
