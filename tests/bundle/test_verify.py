"""Who names keys with verify= asks for a signature by one of them, whatever a bundle holds: D05."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.bundle import SigningKey, Trust, own_key
from aiaas_sdk.errors import ConfigError, IntegrityError, UnsafeBundleError
from aiaas_sdk.records.trusted import Trusted

torch = pytest.importorskip("torch")
X = np.ones((1, 4), np.float32)
MAKER, OTHER = SigningKey(bytes(range(32))), SigningKey(bytes(range(1, 33)))
PROGRAM, REGISTERED, LANGUAGE = "a program", "a registered architecture", "a language model"
OF_DATA = [REGISTERED, LANGUAGE]
KINDS = [PROGRAM, *OF_DATA]


def _made(kind: str, folder: Path) -> None:
    if kind == PROGRAM:
        aiaas.save(torch.nn.Linear(4, 2), folder, example=X)
    elif kind == REGISTERED:
        aiaas.create(f"torch:{folder}", architecture="mlp", config={"features": 4, "classes": 3}).close()
    else:
        config = {"width": 16, "layers": 1, "heads": 2, "context": 16}
        aiaas.create(f"torch:{folder}", architecture="transformer", config=config, tokenizer="bytes").close()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIAAS_HOME", str(folder / "home"))
        for kind in KINDS:
            _made(kind, folder / kind / "m")
    return folder


@pytest.fixture
def of(saved: Path, tmp_path: Path) -> Callable[..., Path]:
    """A bundle of a kind, signed by a key, or by nobody."""

    def of(kind: str = REGISTERED, key: SigningKey | None = MAKER, over: bytes | None = None) -> Path:
        shutil.copytree(saved / kind / "m", tmp_path / "m")
        signature = tmp_path / "m" / "1" / "model.sig"
        signature.unlink()
        if key is not None:
            signature.write_bytes(key.sign(over or (tmp_path / "m" / "1" / "model.json").read_bytes()))
        return tmp_path / "m"

    return of


def opened(address: Any, **options: Any) -> aiaas.ModelInfo:
    with aiaas.load(address, **options) as model:
        return model.info()


def users_settings(text: str) -> None:
    home = Path(os.environ["AIAAS_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    (home / "aiaas.toml").write_text(text)


# ---------------------------------------------------------------- who asks
@pytest.mark.parametrize("kind", KINDS)
def test_d05_the_right_key_opens_a_bundle_of_any_kind(load: Any, of: Callable[..., Path], kind: str) -> None:
    path = of(kind)
    with load(path, verify=[MAKER.public]) as model:
        assert model.info().metadata["signed_by"] == MAKER.public
    with load(path, verify=[OTHER.public, MAKER.public.encode()]) as model:  # several keys, one of them as bytes
        assert model.info().version == "1"


@pytest.mark.parametrize("kind", OF_DATA)
def test_d05_the_signature_that_is_asked_for_isnt_there(load: Any, of: Callable[..., Path], kind: str) -> None:
    with (
        pytest.raises(IntegrityError, match=r"isn't signed, and verify asks for a signature") as caught,
        load(of(kind, None), verify=[MAKER.public]) as model,
    ):
        model.info()
    assert "model.sig" in (caught.value.hint or "")


@pytest.mark.parametrize("kind", OF_DATA)
def test_d05_it_is_signed_by_an_unknown_key(load: Any, of: Callable[..., Path], kind: str) -> None:
    with (
        pytest.raises(IntegrityError, match=r"whom verify doesn't name") as caught,
        load(of(kind), verify=[OTHER.public]) as model,
    ):
        model.info()
    assert MAKER.public in caught.value.message
    assert MAKER.public in (caught.value.hint or "")


@pytest.mark.parametrize("key", [None, MAKER])
def test_d05_a_program_that_lacks_it_is_code_that_nobody_trusted_signed(
    load: Any, of: Callable[..., Path], key: SigningKey | None
) -> None:
    with pytest.raises(UnsafeBundleError), load(of(PROGRAM, key), verify=[OTHER.public]) as model:
        model.info()


def test_d05_a_program_whose_class_is_given_needs_what_is_asked_for_as_well(of: Callable[..., Path]) -> None:
    class Linear(torch.nn.Linear):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__(4, 2)

    path = of(PROGRAM)
    assert opened(path, architecture=Linear).version == "1"
    assert opened(path, architecture=Linear, verify=[MAKER.public]).version == "1"
    with pytest.raises(IntegrityError, match="whom verify doesn't name"):
        opened(path, architecture=Linear, verify=[OTHER.public])


@pytest.mark.parametrize("kind", KINDS)
def test_d05_a_signature_over_another_manifest(load: Any, of: Callable[..., Path], kind: str) -> None:
    path = of(kind, MAKER, b"another")
    for verify in ([MAKER.public], True):
        with pytest.raises(IntegrityError, match="doesn't match the manifest"), load(path, verify=verify) as model:
            model.info()


def test_d05_what_changed_after_it_was_signed(of: Callable[..., Path]) -> None:
    path = of()
    file = path / "1" / "model.json"
    manifest = json.loads(file.read_bytes())
    file.write_text(json.dumps({**manifest, "labels": ["a", "b", "c"]}))
    with pytest.raises(IntegrityError, match="doesn't match the manifest"):
        opened(path, verify=[MAKER.public])
    shutil.rmtree(path)
    path = of()
    weights = path / "1" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(IntegrityError, match="SHA-256"):
        opened(path, verify=[MAKER.public])


@pytest.mark.parametrize("kind", OF_DATA)
def test_who_asks_for_nothing_is_answered_as_before(of: Callable[..., Path], kind: str) -> None:
    path = of(kind, None)
    users_settings(f'trust.keys = ["{OTHER.public}"]')
    for options in ({}, {"verify": True}, {"verify": False}):
        assert opened(path, **options).version == "1"
    (path / "1" / "model.sig").write_bytes(MAKER.sign((path / "1" / "model.json").read_bytes()))
    assert opened(path).metadata["signed_by"] == MAKER.public


def test_the_own_key_is_always_one_of_them(of: Callable[..., Path]) -> None:
    path, own = of(key=own_key()), own_key().public
    assert opened(path, verify=[MAKER.public]).metadata["signed_by"] == own


# ---------------------------------------------------------------- what the settings say
def test_trust_lets_programs_run_and_asks_for_nothing(of: Callable[..., Path]) -> None:
    path = of(PROGRAM)
    with pytest.raises(UnsafeBundleError):
        opened(path)
    users_settings(f'trust.keys = ["{MAKER.public}"]')
    assert opened(path).version == "1"
    assert opened(path, verify=True).version == "1"
    with pytest.raises(UnsafeBundleError):
        opened(path, verify=False)
    assert opened(path, verify=[OTHER.public]).version == "1"


@pytest.mark.parametrize(
    "text", ["defaults.verify = [{key}]", 'models.mine = {{ address = "torch:{path}", verify = [{key}] }}']
)
def test_verify_in_the_settings_asks_as_the_argument_does(of: Callable[..., Path], text: str) -> None:
    path = of()
    where: Any = "mine" if "mine" in text else path
    users_settings(text.format(key=f'"{OTHER.public}"', path=path))
    with pytest.raises(IntegrityError, match="whom verify doesn't name"):
        opened(where)
    users_settings(text.format(key=f'"{OTHER.public}", "{MAKER.public}"', path=path))
    assert opened(where).version == "1"
    assert opened(where, verify=True).version == "1"  # an argument goes before
    users_settings(text.format(key=f'"{OTHER.public}"', path=path) + f'\ntrust.keys = ["{MAKER.public}"]')
    assert opened(where).version == "1"
    (path / "1" / "model.sig").unlink()
    with pytest.raises(IntegrityError, match="isn't signed"):
        opened(where)


# ---------------------------------------------------------------- what can't be asked for
@pytest.mark.parametrize("verify", [[], [None], [""], ["MCowBQYDK2Vw"], [3], [b"\xff"], "ed25519:AAAA"])
def test_what_is_no_list_of_keys_is_told_at_load(load: Any, of: Callable[..., Path], verify: Any) -> None:
    """Before the weights are read; and None, of a variable that isn't set, isn't the signer of what nobody signed."""
    with pytest.raises(ConfigError, match="verify"), load(of(PROGRAM, None), verify=verify) as model:
        model.info()


def test_nobody_is_never_among_the_trusted() -> None:
    assert not Trust.of(True).includes(None)
    assert not Trust(frozenset({None})).includes(None)  # type: ignore[arg-type]


def test_keys_of_the_settings_stay_what_they_are_in_another_process() -> None:
    """A job of a server is given its model's options."""
    found = pickle.loads(pickle.dumps(Trusted([MAKER.public])))
    assert isinstance(found, Trusted)
    assert Trust.of(found) == Trust.of(Trusted([MAKER.public]))
    assert not Trust.of(found).asked


def test_without_cryptography_it_is_said_what_to_install(
    of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, key = of(), MAKER.public
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(aiaas.BackendNotInstalledError, match="signing needs the package cryptography") as caught:
        opened(path, verify=[key])
    assert "aiaas-sdk[sign]" in (caught.value.hint or "")


# ---------------------------------------------------------------- what is made of such a model
def test_what_fit_makes_of_it_is_opened_as_it_was(of: Callable[..., Path]) -> None:
    path, rows, own = of(), np.zeros((8, 4), np.float32), own_key().public
    classes = np.zeros(8, np.int64)
    with aiaas.load(path, verify=[MAKER.public]) as model:
        newer = model.fit(rows, classes, epochs=1, progress=False).result()
        assert (newer.info().version, newer.info().metadata["signed_by"]) == ("2", own)


def test_a_route_goes_on_to_the_member_that_is_signed(of: Callable[..., Path], tmp_path: Path) -> None:
    path = of()
    shutil.copytree(path, tmp_path / "unsigned")
    (tmp_path / "unsigned" / "1" / "model.sig").unlink()
    with aiaas.load([f"torch:{path}", f"torch:{tmp_path / 'unsigned'}"], verify=[MAKER.public]) as model:
        assert model.predict(X).array.shape == (1, 3)
    with (
        pytest.raises(IntegrityError, match="isn't signed"),
        aiaas.load([f"torch:{tmp_path / 'unsigned'}"], verify=[MAKER.public]) as model,
    ):
        model.predict(X)


def test_compare_opens_both_as_asked(of: Callable[..., Path], tmp_path: Path) -> None:
    path = of()
    shutil.copytree(path, tmp_path / "unsigned")
    (tmp_path / "unsigned" / "1" / "model.sig").unlink()
    with (
        pytest.raises(IntegrityError, match="isn't signed"),
        aiaas.load(path, verify=[MAKER.public]) as good,
        aiaas.load(tmp_path / "unsigned", verify=[MAKER.public]) as bad,
    ):
        aiaas.compare(good, bad, X)
    with aiaas.load(path, verify=[MAKER.public]) as good, aiaas.load(tmp_path / "unsigned") as bad:
        assert aiaas.compare(good, bad, X).max_abs == 0
