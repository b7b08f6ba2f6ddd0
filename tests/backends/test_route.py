"""A list of addresses as one model."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas

SIGNATURE = "echo:?x=FP32[-1,3]"
ROW = np.ones((1, 3), np.float32)
ONCE = {"retry": aiaas.Retry(attempts=1)}


@pytest.fixture
def nobody() -> str:
    """The address of a model where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}/v2/models/m"


def test_the_first_that_can_serve_answers(load: Any, nobody: str) -> None:
    model = load([nobody, SIGNATURE], **ONCE)
    assert model.info().inputs[0].name == "x"
    pred = model.predict(ROW)
    assert (pred.backend, pred.version) == ("echo", "1")
    assert np.array_equal(pred.array, ROW)
    assert model.ready()
    assert load([SIGNATURE, nobody]).predict(ROW).attempts == 0


def test_a_member_that_can_not_be_loaded_is_passed_over(load: Any, tmp_path: Path) -> None:
    assert load([f"torch:{tmp_path / 'none'}", "nosuch:x", SIGNATURE]).predict(ROW).backend == "echo"
    with pytest.raises(aiaas.BackendNotInstalledError, match=r"Nothing of the route.*holds no model"):
        load([f"torch:{tmp_path / 'none'}", "nosuch:x"])


def test_when_nobody_can_serve_all_are_told(load: Any, nobody: str) -> None:
    with pytest.raises(aiaas.ConnectError, match=r"None of the route could serve; before it, http"):
        load([nobody, nobody + "2"], **ONCE).predict(ROW)


def test_wrong_input_is_not_passed_on(load: Any) -> None:
    with pytest.raises(aiaas.InputError):
        load([SIGNATURE, "echo:"]).predict(np.ones((1, 4), np.float32))


def test_another_signature_is_no_part_of_the_route(load: Any, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    address = aiaas.save(torch.nn.Linear(3, 2), tmp_path / "m", example=ROW)
    model = load([address, SIGNATURE])
    assert model.predict(ROW).backend == "torch"


@pytest.mark.parametrize(
    ("where", "error", "words"),
    [
        ([], aiaas.AddressError, "empty"),
        (["echo:?x=FP32[-1", SIGNATURE], aiaas.AddressError, "can't read"),
        ([SIGNATURE, 3], aiaas.AddressError, "not int"),
    ],
)
def test_a_wrong_list_is_told_at_once(where: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        aiaas.load(where)


def test_an_option_concerns_the_members_that_know_it(load: Any, nobody: str) -> None:
    assert load([nobody, SIGNATURE], api_key="k", device="cpu", **ONCE).predict(ROW).backend == "echo"
    with pytest.raises(aiaas.UnsupportedOperationError, match="has no use for the option 'device'"):
        load(SIGNATURE, device="cpu")
