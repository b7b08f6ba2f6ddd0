"""From targets to models by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.errors import AddressError, ConfigError, ModelNotFoundError, UnsupportedOperationError
from aiaas_sdk.server import create_app
from aiaas_sdk.server.hosting import Hosting


def names(*targets: str, **options: Any) -> list[str]:
    return list(Hosting(targets, options=options).models)


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("echo:", "echo"),
        ("echo:?x=FP32[-1,3]", "echo"),
        ("same=echo:?x=FP32[-1,3]", "same"),
        ("a.b-c_1=echo:", "a.b-c_1"),
        ("http://127.0.0.1:9/v2/models/far", "far"),
        ("http://127.0.0.1:9/v2/models/far/versions/3", "far"),
        ("near=http://127.0.0.1:9/v2/models/far", "near"),
    ],
)
def test_each_target_has_a_name(target: str, name: str) -> None:
    assert names(target) == [name]


def test_two_models_of_one_name_are_refused_with_a_way_out() -> None:
    with pytest.raises(ConfigError, match="two models have the name 'echo'") as caught:
        names("echo:", "echo:?x=FP32[-1,3]")
    assert "other-echo=" in str(caught.value)


@pytest.mark.parametrize("targets", [[], "echo:"])
def test_targets_that_are_none_are_refused(targets: Any) -> None:
    with pytest.raises(ConfigError):
        Hosting(targets)


@pytest.mark.parametrize("queue", [0, -1])
def test_a_queue_has_room(queue: int) -> None:
    with pytest.raises(ConfigError, match="queue"):
        create_app(["echo:"], queue=queue)


@pytest.mark.parametrize("name", ["max_body", "max_inflated"])
def test_limits_are_positive(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        create_app(["echo:"], **{name: 0})  # type: ignore[arg-type]


def test_an_empty_folder_serves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no model"):
        names(str(tmp_path))


def test_what_cant_be_loaded_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        names(f"torch:{tmp_path}/none")
    with pytest.raises(AddressError):
        names("http://user:key@127.0.0.1/v2/models/x")


def test_an_option_reaches_those_who_take_it_and_must_concern_somebody() -> None:
    assert names("echo:", "http://127.0.0.1:9/v2/models/far", api_key="k") == ["echo", "far"]
    with pytest.raises(UnsupportedOperationError, match="device"):
        names("echo:", device="cpu")
    with pytest.raises(ConfigError, match="devise"):
        names("echo:", devise="cpu")
    with pytest.raises(ConfigError, match=r"unknown option 'max_batch_row'\. Did you mean 'max_batch_rows'"):
        create_app(["echo:"], max_batch_row=1)  # type: ignore[call-arg]
    with aiaas.load("echo:") as model, pytest.raises(ConfigError, match="a target is a Model"):
        create_app([model])  # type: ignore[list-item]


def test_a_name_of_the_settings_can_be_served(monkeypatch: pytest.MonkeyPatch, serving: Any) -> None:
    monkeypatch.setenv("AIAAS_MODEL_MINE", "echo:?x=FP32[-1,3]")
    client = serving("mine")
    assert client("GET", "/v2/models/mine").document["platform"] == "echo"


# ---------------------------------------------------------------- bundles
@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIAAS_HOME", str(folder / "home"))
        module = aiaas.create(  # type: ignore[attr-defined]
            f"torch:{folder}/digits",
            architecture="mlp",
            inputs={"features": ("FP32", [-1, 4])},
            labels=["a", "b", "c"],
            seed=0,
        )
        module.close()
        # two more versions, each with other weights
        from aiaas_sdk.architectures.mlp import MLP

        for seed in (1, 2):
            torch.manual_seed(seed)
            made = MLP(4, 3)
            aiaas.save(
                made, folder / "digits", example={"features": np.ones((1, 4), np.float32)}, labels=["a", "b", "c"]
            )
    return folder


@pytest.mark.slow
def test_a_folder_of_bundles_is_served_with_its_versions(repository: Path, serving: Any) -> None:
    client = serving(str(repository))
    assert client("GET", "/v2/models").document == {"models": ["digits"]}
    x = np.random.default_rng(0).random((5, 4), dtype=np.float32)
    for version in ("1", "2", "3"):
        address = f"{client.url}/v2/models/digits/versions/{version}"
        with aiaas.load(address) as far, aiaas.load(f"torch:{repository}/digits@{version}") as near:
            here, there = near.predict(x), far.predict(x)
            assert np.array_equal(here.array, there.array)
            assert (there.version, there.top()) == (version, here.top())
            for fact in ("digest", "dtype", "precision"):
                assert far.info().metadata[fact] == near.info().metadata[fact]
            assert far.info().labels == ("a", "b", "c")
            assert far.info().device == near.info().device
    assert client("GET", "/v2/models/digits/versions/4").status == 404
    rows = client("POST", "/v2/repository/index").document
    assert [(row["version"], row["state"]) for row in rows] == [("1", "READY"), ("2", "READY"), ("3", "READY")]


@pytest.mark.slow
def test_versions_wait_until_they_are_asked_for(repository: Path, serving: Any) -> None:
    client = serving(f"{repository}/digits")
    states = {row["version"]: row["state"] for row in client("POST", "/v2/repository/index").document}
    assert states == {"1": "UNAVAILABLE", "2": "UNAVAILABLE", "3": "READY"}
    ready = client("POST", "/v2/repository/index", {"ready": True}).document
    assert [row["version"] for row in ready] == ["3"]


@pytest.mark.slow
def test_a_pinned_version_is_the_only_one(repository: Path, serving: Any) -> None:
    client = serving(f"torch:{repository}/digits@2")
    assert client("GET", "/v2/models/digits").document["versions"] == ["2"]
    assert client("GET", "/v2/models/digits/versions/3").status == 404
    assert client("GET", "/v2/models/digits/versions/2").status == 200


@pytest.mark.slow
def test_an_error_names_no_path_of_the_server(repository: Path, serving: Any) -> None:
    client = serving(str(repository))
    x = {"name": "features", "datatype": "FP32", "shape": [1, 5], "data": [0] * 5}
    answer = client("POST", "/v2/models/digits/infer", {"inputs": [x]})
    assert answer.status == 400
    assert str(repository) not in answer.error


@pytest.mark.slow
def test_a_bundle_that_was_changed_ends_the_start(repository: Path, tmp_path: Path) -> None:
    import shutil

    from aiaas_sdk.server import serve_in_thread

    shutil.copytree(repository / "digits", tmp_path / "digits")
    with (tmp_path / "digits" / "3" / "weights.safetensors").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(aiaas.BundleError), serve_in_thread([str(tmp_path)]):
        pass


@pytest.mark.slow
def test_several_programs_are_opened_at_once(tmp_path: Path, serving: Any) -> None:
    torch = pytest.importorskip("torch")
    names = ["a", "b", "c", "d", "e"]
    for name in names:
        aiaas.save(torch.nn.Linear(3, 2), tmp_path / name, example=np.ones((1, 3), np.float32))
    client = serving(str(tmp_path))
    for name in names:
        with aiaas.load(f"{client.url}/v2/models/{name}") as model:
            assert model.predict(np.ones((4, 3), np.float32))["output"].shape == (4, 2)
