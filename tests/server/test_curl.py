"""The calls that people make by hand, with curl as it is."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl isn't installed")


def curl(*arguments: str) -> str:
    command = ["curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "20", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_a_content_type_of_its_own(echo: Any) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1.0, 2.0, 3.0]}
    body = json.dumps({"inputs": [tensor]})
    assert json.loads(curl("-d", body, f"{echo.url}/v2/models/one/infer"))["outputs"] == [tensor]
    rows = json.dumps({"instances": [[1, 2, 3]]})
    assert json.loads(curl("-d", rows, f"{echo.url}/v1/models/one:predict")) == {"predictions": [[1.0, 2.0, 3.0]]}


def test_a_packed_answer(echo: Any) -> None:
    rows = json.dumps({"instances": [[k, k, k] for k in range(500)]})
    found = json.loads(curl("--compressed", "-d", rows, f"{echo.url}/v1/models/one:predict"))
    assert len(found["predictions"]) == 500


def test_head_and_a_stream(echo: Any) -> None:
    assert curl("--head", f"{echo.url}/readyz").startswith("HTTP/1.1 200")
    stream = curl("--no-buffer", "-d", '{"text_input": "a b"}', f"{echo.url}/v2/models/one/generate_stream")
    assert stream.count("data: ") == 2


def test_a_large_body_with_expect(echo: Any, tmp_path: Any) -> None:
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"instances": [[0.5, 1.5, 2.5]] * 50_000}))
    found = curl("-H", "Expect: 100-continue", "--data-binary", f"@{body}", f"{echo.url}/v1/models/one:predict")
    assert len(json.loads(found)["predictions"]) == 50_000
