"""Which files an address may mean, and what a file may not do."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import aiaas_sdk as aiaas
from aiaas_sdk import bundle
from aiaas_sdk.bundle import SigningKey

Put = Callable[..., str]
X = np.ones((1, 3), np.float32)


def opened(address: Any, **options: Any) -> aiaas.ModelInfo:
    with aiaas.load(address, **options) as model:
        return model.info()


def bundled(
    folder: Path,
    made: onnx.ModelProto,
    beside: dict[str, bytes] | None = None,
    key: SigningKey | None = None,
    **facts: Any,
) -> str:
    """A bundle as `export` writes one, signed by a key or by nobody."""
    specs = {
        "inputs": [bundle.Tensor(name="x", datatype="FP32", shape=[-1, 3])],
        "outputs": [bundle.Tensor(name="y", datatype="FP32", shape=[-1, 4])],
    }
    data = {"model.onnx": made.SerializeToString(), **(beside or {})}

    def files(version: str) -> dict[str, bytes]:
        listed = {name: bundle.digest_of(content) for name, content in data.items()}
        manifest = bundle.Manifest(name="line", version=version, **{**specs, "files": listed, **facts})
        text = manifest.model_dump_json().encode()
        return {**data, bundle.MANIFEST: text, **({bundle.SIGNATURE: key.sign(text)} if key else {})}

    return f"onnx:{folder}@{bundle.write(folder, files).version}"


# ---------------------------------------------------------------- where
def test_a_file_a_folder_and_versions(put: Put, graphs: SimpleNamespace, tmp_path: Path) -> None:
    for name in ("one.onnx", "alone/model.onnx", "repository/1/model.onnx", "repository/10/model.onnx"):
        put(graphs.affine(), name)
    assert opened(f"onnx:{tmp_path}/one.onnx").name == "one"
    assert opened(f"onnx:{tmp_path}/alone").name == "alone"
    newest = opened(f"onnx:{tmp_path}/repository")
    assert (newest.name, newest.version, newest.versions) == ("repository", "10", ("1", "10"))
    assert opened(f"onnx:{tmp_path}/repository@1").version == "1"


def test_a_bundle_says_what_it_is(graphs: SimpleNamespace, tmp_path: Path) -> None:
    labels = ["a", "b", "c", "d"]
    address = bundled(tmp_path / "line", graphs.affine(), labels=labels, metadata={"by": "me"}, dtype="float32")
    with aiaas.load(address) as model:
        info = model.info()
        assert (info.name, info.version, info.labels) == ("line", "1", tuple(labels))
        assert (info.metadata["by"], info.metadata["dtype"]) == ("me", "float32")
        assert model.predict(X).top(1)[0][0][0] == "d"


@pytest.mark.parametrize(
    ("target", "error", "text"),
    [
        ("", aiaas.AddressError, "names no file"),
        ("nowhere.onnx", aiaas.ModelNotFoundError, "there is no"),
        ("nowhere@3", aiaas.ModelNotFoundError, "there is no"),
        ("model.onnx@3", aiaas.AddressError, "no folder of versions"),
        ("empty", aiaas.BundleError, r"holds no \.onnx file"),
        ("two", aiaas.BundleError, "2 ONNX models: a.onnx, b.onnx"),
        ("weights.bin", aiaas.BundleError, r"is no \.onnx file"),
        ("versions@9", aiaas.ModelNotFoundError, "no version 9"),
    ],
)
def test_what_isnt_there_is_said_at_load(
    put: Put, graphs: SimpleNamespace, tmp_path: Path, target: str, error: Any, text: str
) -> None:
    for name in ("model.onnx", "two/a.onnx", "two/b.onnx", "versions/1/model.onnx"):
        put(graphs.affine(), name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "weights.bin").write_bytes(b"\0")
    with pytest.raises(error, match=text):
        aiaas.load(f"onnx:{tmp_path / target if target else ''}")


# ---------------------------------------------------------------- files that are wrong
@pytest.mark.parametrize("left", [0, 1, 100, -1, -50])
def test_a_file_that_is_cut_short_is_no_model(put: Put, graphs: SimpleNamespace, left: int) -> None:
    address = put(graphs.affine())
    path = Path(address.removeprefix("onnx:"))
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(aiaas.BundleError, match=r"model\.onnx"):
        opened(address)


def test_an_operation_that_onnxruntime_doesnt_know(
    put: Put, graphs: SimpleNamespace, capfd: pytest.CaptureFixture[str]
) -> None:
    ends = [graphs.value("x", "FP32", ["n"])], [graphs.value("y", "FP32", ["n"])]
    with pytest.raises(aiaas.BundleError, match=r"can't be run by onnxruntime .*Strange"):
        opened(put(graphs.model([helper.make_node("Strange", ["x"], ["y"])], *ends)))
    assert capfd.readouterr().err == ""


def test_what_cant_travel_is_said_at_opening(put: Put, graphs: SimpleNamespace) -> None:
    many = helper.make_tensor_sequence_value_info("y", onnx.TensorProto.FLOAT, None)
    sequence = graphs.model(
        [helper.make_node("SequenceConstruct", ["x"], ["y"])], [graphs.value("x", "FP32", [2])], [many]
    )
    with pytest.raises(aiaas.UnsupportedOperationError, match=r"output 'y'.*seq"):
        opened(put(sequence))
    with pytest.raises(aiaas.UnsupportedOperationError, match="how many axes"):
        opened(put(graphs.identity(shape=None)))


# ---------------------------------------------------------------- weights beside the model
def test_weights_in_a_plain_file_beside_it_are_read(put: Put, graphs: SimpleNamespace) -> None:
    whole, split = put(graphs.affine(), "a.onnx"), {"save_as_external_data": True, "size_threshold": 0}
    apart = put(graphs.affine(), "b.onnx", location="b.data", **split)
    with aiaas.load(whole) as one, aiaas.load(apart) as other:
        np.testing.assert_array_equal(one.predict(X)["y"], other.predict(X)["y"])


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "sub/w", "..", "", "a\\b"])
def test_weights_from_elsewhere_are_refused(put: Put, graphs: SimpleNamespace, tmp_path: Path, location: str) -> None:
    made = graphs.affine()
    onnx.external_data_helper.set_external_data(made.graph.initializer[0], location or "x")
    if not location:
        made.graph.initializer[0].external_data[0].value = ""
    path = tmp_path / "in" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(made.SerializeToString())
    (tmp_path / "secret").write_bytes(b"\0" * 48)
    with pytest.raises(aiaas.UnsafeBundleError, match="no plain file name"):
        opened(f"onnx:{path}")


def test_so_are_those_of_a_tensor_deep_inside(put: Put, graphs: SimpleNamespace, tmp_path: Path) -> None:
    """A constant in a branch of an If, in a node's attribute."""
    hidden = onnx.numpy_helper.from_array(np.ones(3, np.float32), "c")
    onnx.external_data_helper.set_external_data(hidden, "../secret")
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["out"], value=hidden)], "branch", [], [graphs.value("out", "FP32", [3])]
    )
    node = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    made = graphs.model([node], [graphs.value("x", "BOOL", [])], [graphs.value("y", "FP32", [3])])
    (tmp_path / "model.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(aiaas.UnsafeBundleError, match="no plain file name"):
        opened(f"onnx:{tmp_path / 'model.onnx'}")


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_beside_it_isnt_followed(put: Put, graphs: SimpleNamespace, tmp_path: Path) -> None:
    address = put(graphs.affine(), "m.onnx", save_as_external_data=True, size_threshold=0, location="m.data")
    (tmp_path / "m.data").rename(tmp_path / "elsewhere")
    (tmp_path / "m.data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(aiaas.UnsafeBundleError, match=r"m\.data"):
        opened(address)


def test_a_bundle_has_what_its_manifest_lists_and_nothing_else(graphs: SimpleNamespace, tmp_path: Path) -> None:
    made = graphs.affine()
    weights = made.graph.initializer[0]
    data = bytes(weights.raw_data)
    onnx.external_data_helper.set_external_data(weights, "model.onnx.data", length=len(data))
    weights.ClearField("raw_data")
    whole = bundled(tmp_path / "whole", made, {"model.onnx.data": data})
    with aiaas.load(whole) as model:
        assert model.predict(X)["y"].tolist() == [[11, pytest.approx(15 - 1 / 3 + 0), pytest.approx(18 + 1 / 3), 22]]
    with pytest.raises(aiaas.UnsafeBundleError, match="the manifest doesn't list"):
        opened(bundled(tmp_path / "less", made))
    (tmp_path / "whole" / "1" / "more").write_bytes(b"x")
    with pytest.raises(aiaas.IntegrityError, match="'more'"):
        opened(whole)


def test_a_bundle_that_was_changed_is_refused(graphs: SimpleNamespace, tmp_path: Path) -> None:
    address = bundled(tmp_path / "line", graphs.affine())
    path = tmp_path / "line" / "1" / "model.onnx"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(aiaas.IntegrityError, match="SHA-256"):
        opened(address)


# ---------------------------------------------------------------- whose signature
MAKER, OTHER = SigningKey(bytes(range(32))), SigningKey(bytes(range(1, 33)))


def test_d05_the_signature_that_verify_asks_for(graphs: SimpleNamespace, tmp_path: Path) -> None:
    signed = bundled(tmp_path / "signed", graphs.affine(), key=MAKER)
    assert opened(signed).metadata["signed_by"] == MAKER.public  # nobody asks
    assert opened(signed, verify=[OTHER.public, MAKER.public]).version == "1"
    with pytest.raises(aiaas.IntegrityError, match="whom verify doesn't name"):
        opened(signed, verify=[OTHER.public])
    unsigned = bundled(tmp_path / "unsigned", graphs.affine())
    for verify in (True, False):
        assert "signed_by" not in opened(unsigned, verify=verify).metadata
    with pytest.raises(aiaas.IntegrityError, match="isn't signed, and verify asks for a signature"):
        opened(unsigned, verify=[MAKER.public])


def test_d05_a_signature_over_another_manifest(graphs: SimpleNamespace, tmp_path: Path) -> None:
    address = bundled(tmp_path / "line", graphs.affine())
    (tmp_path / "line" / "1" / "model.sig").write_bytes(MAKER.sign(b"another"))
    for verify in ([MAKER.public], True):
        with pytest.raises(aiaas.IntegrityError, match="doesn't match the manifest"):
            opened(address, verify=verify)


def test_d05_what_has_no_manifest_cant_be_signed(put: Put, graphs: SimpleNamespace, tmp_path: Path) -> None:
    for name in ("one.onnx", "alone/model.onnx", "repository/1/model.onnx"):
        put(graphs.affine(), name)
    for target in ("one.onnx", "alone", "repository"):
        with pytest.raises(aiaas.IntegrityError, match="is no bundle, so nobody signed it"):
            opened(f"onnx:{tmp_path / target}", verify=[MAKER.public])


def test_a_bundle_that_changes_between_load_and_opening_is_refused(graphs: SimpleNamespace, tmp_path: Path) -> None:
    """The file that is opened is the one that its first manifest names."""
    address = bundled(tmp_path / "line", graphs.affine())
    bundled(tmp_path / "new", graphs.affine(), labels=["a", "b", "c", "d"])
    with aiaas.load(address) as model:  # opened here
        assert model.info().labels is None
    backend_of = aiaas.load_async(address)
    (tmp_path / "line" / "1" / "model.json").write_bytes((tmp_path / "new" / "1" / "model.json").read_bytes())
    with pytest.raises(aiaas.IntegrityError, match="was changed while it was loaded"):
        asyncio.run(backend_of.info())


def test_a_bundle_whose_model_is_another_is_refused(graphs: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(aiaas.BundleError, match="than its manifest says"):
        opened(bundled(tmp_path / "line", graphs.identity()))


def test_a_bundle_of_pytorch_is_told_from_one_of_onnx(tmp_path: Path) -> None:
    folder = tmp_path / "torch" / "1"
    folder.mkdir(parents=True)
    manifest = {"name": "t", "version": "1", "inputs": [], "outputs": [], "files": {}}
    (folder / "model.json").write_text(json.dumps(manifest))
    with pytest.raises(aiaas.BundleError, match="holds no") as told:
        aiaas.load(f"onnx:{tmp_path / 'torch'}")
    assert "aiaas export" in str(told.value)
