"""docs/testing.md as what it shows: a module of tests, recorded once and then replayed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.recordings import lines
from aiaas_sdk.server import serve_in_thread
from aiaas_sdk.testing import Script

PAGE = Path(__file__).parent.parent.parent / "docs" / "testing.md"


def test_the_line_that_the_page_shows_is_one_of_a_recording() -> None:
    [line] = re.findall(r"^```json\n(.*)\n```$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert lines.encode(lines.decode(line, 3, "the page")) == line


@pytest.mark.slow
@pytest.mark.timeout(500)  # two whole runs of pytest
def test_the_tests_of_the_page_pass_recorded_and_replayed(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (tmp_path / "test_flowers.py").write_text("\n\n".join(blocks))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")

    def run(*arguments: str, **variables: str) -> str:
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
        environment = {**os.environ, **variables}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
        return done.stdout + done.stderr

    script = Script(outputs={"scores": ("FP32", (-1, 2))}, labels=["setosa", "virginica"]).answer([[0.1, 0.9]])
    with serve_in_thread([f"iris={script.address}"]) as url:
        out = run("--aiaas=record", "-k", "long_petal", AIAAS_MODEL_IRIS=f"{url}/v2/models/iris")
    assert "1 passed" in out, out
    assert (tmp_path / "recordings" / "test_flowers" / "test_a_long_petal.jsonl").exists()
    out = run("--aiaas-strict")
    assert f"{PAGE.read_text('utf-8').count('def test_')} passed" in out, out
    assert isinstance(script.calls, list)
    assert len(script.calls) == 1
    assert aiaas.load(f"replay:{tmp_path}/recordings/test_flowers/test_a_long_petal.jsonl").info().labels
