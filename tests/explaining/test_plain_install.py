"""An install without torch and captum explains what answers: perturbing is numpy's."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
for name in ("torch", "captum", "PIL", "matplotlib", "sklearn"):
    sys.modules[name] = None  # importing it fails
import numpy as np
import aiaas_sdk as aiaas

model = aiaas.load(sys.argv[1])
x = np.arange(8, dtype=np.float32).reshape(2, 4)
found = model.explain(x)
assert found.method == "shap", found.method
assert np.allclose(found.array.sum(1), [3, 7]), found.array
assert model.explain(x, method="occlusion").array.tolist() == [[0, 0, 0, 3], [0, 0, 0, 7]]
found.plot("bars.html")
picture = aiaas.load("echo:?x=FP32[-1,1,4,4]").explain(np.ones((1, 1, 4, 4), np.float32), target="x[0,3,3]")
for drawn, file in ((found, "bars.png"), (picture, "map.html")):  # maps are pictures, in a page too
    try:
        drawn.plot(file)
    except aiaas.BackendNotInstalledError as error:
        assert "aiaas-sdk[plots]" in str(error)
    else:
        raise AssertionError(f"{file} drawn without pillow")
"""


def test_explaining_without_torch(tmp_path: object) -> None:
    from aiaas_sdk.server import serve_in_thread

    with serve_in_thread(["one=echo:?x=FP32[-1,4]"]) as url:
        for address in ("echo:?x=FP32[-1,4]", f"{url}/v2/models/one"):
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM, address], cwd=str(tmp_path), capture_output=True, text=True, timeout=60
            )
            assert done.returncode == 0, done.stderr[-2000:]


def test_without_captum_what_needs_it_says_so(monkeypatch, at) -> None:  # type: ignore[no-untyped-def]
    import importlib.util

    import pytest

    import aiaas_sdk as aiaas
    from aiaas_sdk.backends.torch import explanation

    from .conftest import images

    find = importlib.util.find_spec
    monkeypatch.setattr(explanation, "find_spec", lambda name: None if name == "captum" else find(name))
    model = aiaas.load(at("here", "digits"))
    with pytest.raises(aiaas.InputError, match=r'saliency needs captum: pip install "aiaas-sdk\[explain\]"'):
        model.explain(images(1), method="saliency")
    assert model.explain(images(1)).method == "occlusion"
    assert aiaas.load(at("here", "encoder")).explain("a").method == "attention_rollout"
