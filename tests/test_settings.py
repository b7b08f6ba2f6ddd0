"""Settings: which file and variable wins, what is refused and how it is named, and where credentials go."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiaas_sdk.errors import AddressError, AiaasError, ConfigError
from aiaas_sdk.records.hidden import Hidden
from aiaas_sdk.records.policies import Retry
from aiaas_sdk.settings import Settings, read
from aiaas_sdk.settings.credentials import origin_of
from aiaas_sdk.settings.values import MisfitError, fit

KEY = "ed25519:" + "A" * 43 + "="
SECRET = "sk-s3cret-0123"


class Place:
    """A working folder, a user's folder and an environment."""

    def __init__(self, root: Path) -> None:
        self.work, self.home = root / "work", root / "own"
        self.work.mkdir()
        self.home.mkdir()
        self.environ = {"AIAAS_HOME": str(self.home)}

    def project(self, text: str) -> Path:
        return _write(self.work / "aiaas.toml", text)

    def users(self, text: str) -> Path:
        return _write(self.home / "aiaas.toml", text)

    def read(self, **variables: str) -> Settings:
        return read(self.work, {**self.environ, **variables})

    def wrong(self, **variables: str) -> str:
        with pytest.raises(ConfigError) as caught:
            self.read(**variables)
        return str(caught.value)


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# ---------------------------------------------------------------- names
def test_without_files_nothing_is_set(place: Place) -> None:
    settings = place.read()
    assert (settings.names, settings.defaults, settings.trust) == ((), ({}, {}), ())
    assert settings.credential("https://h") is None


def test_a_name_is_an_address_a_table_or_a_route(place: Place) -> None:
    file = place.project("""
        [models]
        a = "https://h/v2/models/a"
        b = { address = "https://h/v2/models/b@3", timeout = 60, headers = { X = "y" }, retry = { attempts = 5 } }
        c = ["https://h/v2/models/c", "echo:"]
        [models.d]
        address = ["echo:", "echo:?x=FP32[-1]"]
        concurrency = 4
    """)
    settings = place.read()
    assert settings.names == ("a", "b", "c", "d")
    assert settings.resolve("a").address == "https://h/v2/models/a"
    b = settings.resolve("b")
    assert b.address == "https://h/v2/models/b@3"
    assert b.options == {"timeout": 60.0, "retry": Retry(attempts=5), "headers": {"X": Hidden("y")}}
    assert b.sources == dict.fromkeys(("address", "timeout", "retry", "headers"), f"{file} [models] b")
    assert settings.resolve("c").address == ("https://h/v2/models/c", "echo:")
    assert settings.resolve("d").options == {"concurrency": 4}


def test_the_variable_goes_before_the_profile_and_that_before_models(place: Place) -> None:
    file = place.project("""
        [models]
        digits = { address = "echo:?x=FP32[1]", timeout = 1 }
        [profiles.staging.models]
        digits = "echo:?x=FP32[2]"
    """)
    assert place.read().resolve("digits").options == {"timeout": 1.0}
    staged = place.read(AIAAS_PROFILE=" staging\n").resolve("digits")
    assert (staged.address, staged.options) == ("echo:?x=FP32[2]", {})  # whole: nothing of the entry behind it
    assert staged.sources == {"address": f"{file} [profiles.staging.models] digits"}
    named = place.read(AIAAS_PROFILE="staging", AIAAS_MODEL_DIGITS="echo:?x=FP32[3]").resolve("digits")
    assert named.address == "echo:?x=FP32[3]"
    assert named.sources["address"] == "environment variable AIAAS_MODEL_DIGITS"


def test_the_projects_file_goes_before_the_users(place: Place) -> None:
    place.users("""
        [models]
        m = { address = "https://mine/v2/models/m", headers = { Authorization = "Bearer s3cret" } }
        u = "echo:"
        [profiles.p.models]
        q = "echo:"
        [defaults]
        timeout = 5
        device = "cpu"
    """)
    place.project('models.m = "https://theirs/v2/models/m"\ndefaults.timeout = 7')
    settings = place.read()
    assert settings.resolve("m").address == "https://theirs/v2/models/m"
    assert "headers" not in settings.resolve("m").options  # the hidden entry's headers go nowhere
    assert settings.resolve("u").options == {"timeout": 7.0, "device": "cpu"}
    assert place.read(AIAAS_PROFILE="p").resolve("q").address == "echo:"


def test_aiaas_config_is_read_instead_of_the_working_folders_file(place: Place, tmp_path: Path) -> None:
    place.project("this isn't TOML")
    other = _write(tmp_path / "other.toml", f'models.m = "echo:"\ntrust.keys = ["{KEY}"]')
    for path in (str(other), "../other.toml"):
        settings = place.read(AIAAS_CONFIG=path)
        assert settings.resolve("m").sources["address"] == f"{other} [models] m"
        assert settings.trust == (KEY,)
    assert "AIAAS_CONFIG" in place.wrong(AIAAS_CONFIG="nowhere.toml")


def test_a_profile_may_stand_in_both_files(place: Place) -> None:
    place.users('[profiles.p.models]\na = "echo:?u=FP32[]"\nb = "torch:~/b"\n[profiles.p.defaults]\ndevice = "cpu"')
    place.project('profiles.p.models.a = "echo:?p=FP32[]"\nprofiles.p.defaults.timeout = 2\nmodels.b = "echo:"')
    settings = place.read(AIAAS_PROFILE="p")
    assert settings.resolve("a").address == "echo:?p=FP32[]"
    assert settings.resolve("b").address == f"torch:{Path.home()}/b"
    assert settings.defaults[0] == {"timeout": 2.0, "device": "cpu"}


def test_the_users_folder_as_working_folder_is_still_the_users(place: Place) -> None:
    file = place.users(f'trust.keys = ["{KEY}"]')
    for variables in ({}, {"AIAAS_CONFIG": str(file)}):
        settings = read(place.home, {**place.environ, **variables})
        assert (settings.trust, len(settings.documents)) == ((KEY,), 1)


def test_an_unknown_name_says_the_near_ones_and_how_to_define_it(place: Place) -> None:
    place.project('models.digits = "echo:"')
    with pytest.raises(AddressError) as caught:
        place.read().resolve("digit-s")
    text = str(caught.value)
    assert all(part in text for part in ("'digit-s'", "'digits'", "AIAAS_MODEL_DIGIT_S", "[models]", "torch:digit-s"))


@pytest.mark.parametrize(
    "address", ["other", "https://me:s3cret@h/v2/models/m", "https://h/v2/models/m?k=s3cret", "https://:80/"]
)
def test_a_wrong_address_names_where_it_stands_and_no_credential(place: Place, address: str) -> None:
    file = place.project(f'models.m = ["echo:", "{address}"]')
    with pytest.raises(AddressError) as caught:
        place.read().resolve("m")
    assert f"{file} [models] m" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(AddressError, match="AIAAS_MODEL_M"):
        place.read(AIAAS_MODEL_M=address).resolve("m")


def test_two_names_with_one_variable_are_an_error_once_it_is_set(place: Place) -> None:
    place.project('[models]\nmy-model = "echo:"\nmy_model = "echo:"\nother = "echo:"')
    assert place.read(AIAAS_MODEL_MY_MODEL="  ").resolve("my-model").address == "echo:"
    settings = place.read(AIAAS_MODEL_MY_MODEL="echo:")
    with pytest.raises(ConfigError, match="'my-model' and 'my_model'"):
        settings.resolve("my-model")
    assert settings.resolve("other").address == "echo:"


def test_paths_in_a_file_are_relative_to_it(place: Place) -> None:
    place.users('[models]\na = "torch:models/x@3"\nb = "../y"\nc = "torch:/abs/z@prod"\nd = ["./e", "echo:"]')
    settings = place.read(AIAAS_MODEL_V="torch:models/x")
    assert settings.resolve("a").address == f"torch:{place.home}/models/x@3"
    assert settings.resolve("b").address == f"torch:{place.home.parent}/y"
    assert settings.resolve("c").address == "torch:/abs/z@prod"
    assert settings.resolve("d").address == (f"torch:{place.home}/e", "echo:")
    assert settings.resolve("v").address == "torch:models/x"  # as in an argument


# ---------------------------------------------------------------- options
def test_an_entrys_own_options_then_the_environment_then_the_profile_then_defaults(place: Place) -> None:
    file = place.project("""
        [models]
        m = { address = "echo:", timeout = 1 }
        n = "echo:"
        [defaults]
        timeout = 4
        device = "cpu"
        batch_size = 8
        [profiles.p.defaults]
        timeout = 3
        device = "cuda"
    """)
    settings = place.read(AIAAS_PROFILE="p", AIAAS_TIMEOUT="2")
    assert settings.resolve("m").options == {"timeout": 1.0, "device": "cuda", "batch_size": 8}
    assert settings.resolve("n").options["timeout"] == 2.0
    options, sources = settings.defaults
    assert options == {"timeout": 2.0, "device": "cuda", "batch_size": 8}
    assert sources == {
        "timeout": "environment variable AIAAS_TIMEOUT",
        "device": f"{file} [profiles.p.defaults]",
        "batch_size": f"{file} [defaults]",
    }


def test_every_option_variable_has_its_effect(place: Place) -> None:
    settings = place.read(
        AIAAS_TIMEOUT="1.5",
        AIAAS_ATTEMPT_TIMEOUT="None",
        AIAAS_DEVICE=" cpu\n",
        AIAAS_DTYPE="bfloat16",
        AIAAS_CONCURRENCY="3",
        AIAAS_BATCH_SIZE="7",
    )
    assert settings.defaults[0] == {
        "timeout": 1.5,
        "attempt_timeout": None,
        "device": "cpu",
        "dtype": "bfloat16",
        "concurrency": 3,
        "batch_size": 7,
    }


def test_no_limit_is_not_the_same_as_not_given(place: Place) -> None:
    place.project('defaults = { timeout = "none", retry = false, verify = false }')
    assert place.read().defaults[0] == {"timeout": None, "retry": None, "verify": False}
    place.project("defaults.retry = true")
    assert place.read().defaults[0] == {"retry": Retry()}


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
def test_an_empty_variable_is_unset(place: Place, blank: str) -> None:
    place.project('models.m = "echo:"')
    names = ("AIAAS_CONFIG", "AIAAS_PROFILE", "AIAAS_TIMEOUT", "AIAAS_CONCURRENCY", "AIAAS_MODEL_M", "AIAAS_TIMEOUTS")
    settings = place.read(**dict.fromkeys(names, blank))
    assert (settings.resolve("m").address, settings.defaults[0]) == ("echo:", {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AIAAS_TIMEOUT", SECRET),
        ("AIAAS_TIMEOUT", "-1"),
        ("AIAAS_TIMEOUT", "0"),
        ("AIAAS_TIMEOUT", "nan"),
        ("AIAAS_ATTEMPT_TIMEOUT", "inf"),
        ("AIAAS_CONCURRENCY", "1.5"),
        ("AIAAS_CONCURRENCY", "none"),
        ("AIAAS_BATCH_SIZE", "0"),
    ],
)
def test_a_wrong_variable_is_named_without_its_value(place: Place, name: str, value: str) -> None:
    text = place.wrong(**{name: value})
    assert name in text
    assert SECRET not in text


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("AIAAS_TIMEOUTS", "AIAAS_TIMEOUT"),
        ("AIAAS_TIME_OUT", "AIAAS_TIMEOUT"),
        ("AIAAS_BATCHSIZE", "AIAAS_BATCH_SIZE"),
        ("AIAAS_PROFIL", "AIAAS_PROFILE"),
        ("aiaas_device", "AIAAS_DEVICE"),
        ("AIAAS_MODELS_DIGITS", "AIAAS_MODEL_DIGITS"),
        ("AIAAS_MODEL", "AIAAS_MODEL_<NAME>"),
    ],
)
def test_a_misspelt_variable_is_an_error(place: Place, name: str, meant: str) -> None:
    text = place.wrong(**{name: SECRET})
    assert name in text
    assert f"Did you mean {meant}" in text
    assert SECRET not in text


def test_variables_of_others_are_left_alone(place: Place) -> None:
    place.read(AIAAS_SERVE_PORT="1", AIAAS_READ_TIMEOUT="x", AIAAS="x", HOME="/", AIAASTIMEOUT="x")


def test_an_unknown_profile_lists_those_that_are_there(place: Place) -> None:
    place.project('profiles.prod.defaults.timeout = 1\nprofiles.staging.models.m = "echo:"')
    text = place.wrong(AIAAS_PROFILE="stagng")
    assert "AIAAS_PROFILE" in text
    assert "prod, staging" in text


@pytest.mark.parametrize(
    ("annotation", "value", "want"),
    [
        (int | str, "a", "a"),
        (int | float, 1, 1),
        (float | str, 1, 1.0),
        (Literal["a", 1], 1, 1),
        (Path, "a/b", Path("folder/a/b")),
        (str | os.PathLike[str], "a", Path("folder/a")),
        (os.PathLike[str] | None, "a", Path("folder/a")),
        (Sequence[str], ["a"], ("a",)),
        (frozenset[str], ["a", "a"], frozenset("a")),
        (tuple[float, str], [1, "a"], (1.0, "a")),
        (Mapping[str, tuple[float, float]], {"a": [1, 2]}, {"a": (1.0, 2.0)}),
        (Retry | None, {"wait": 1}, Retry(wait=1.0)),
        (Retry | None, "none", None),
        (str | Callable[[], str], "a", "a"),
    ],
)
def test_what_the_annotation_of_an_option_lets_in(annotation: Any, value: Any, want: Any) -> None:
    fitted = fit(value, annotation, Path("folder"))
    assert (fitted, type(fitted)) == (want, type(want))


@pytest.mark.parametrize(
    ("annotation", "value", "key"),
    [
        (Literal["a", 1], True, ""),
        (Literal["a", 1], [], ""),
        (tuple[float, str], [1], ""),
        (Mapping[str, float], 3, ""),
        (Mapping[str, list[float]], {"a": [1, "x"]}, "a.1"),
        (Sequence[str], "a", ""),
        (Callable[[], str], "a", ""),
        (float, 10**400, ""),
        (Retry | None, {"wait": -1}, ""),
        (Retry | None, {"wait": "x"}, "wait"),
    ],
)
def test_what_it_doesnt_let_in(annotation: Any, value: Any, key: str) -> None:
    with pytest.raises(MisfitError) as caught:
        fit(value, annotation, Path("folder"))
    assert caught.value.key == key


# ---------------------------------------------------------------- wrong files
@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("model.m = 'echo:'", ("model", "'models'")),
        ("models = 3", ("models", "a table")),
        ("models.m = 3", ("[models] m", "an address")),
        ("models.m = []", ("[models] m",)),
        ("models.m = ['echo:', 3]", ("[models] m",)),
        ("models.m = ''", ("[models] m",)),
        ("models.'' = 'echo:'", ("[models] ''", "name")),
        ("models.m.timeout = 3", ("[models] m", "no address")),
        ("models.'a b' = 'echo:'", ("[models]", "'a b'", "name")),
        ("models.m = { address = 'echo:', timeuot = 1 }", ("[models] m.timeuot", "'timeout'")),
        ("models.m = { adress = 'echo:' }", ("[models] m.adress", "'address'")),
        ("models.m = { address = 'echo:', architecture = 'cnn' }", ("m.architecture", "code")),
        ("models.m = { address = 'echo:', input = 'x' }", ("m.input", "code")),
        ("defaults.timeout = '10'", ("[defaults] timeout", "a number", "text")),
        ("defaults.timeout = true", ("[defaults] timeout", "a number", "a truth value")),
        ("defaults.timeout = false", ("[defaults] timeout", "a number", "a truth value")),
        ("defaults.timeout = 0", ("[defaults] timeout", "above 0")),
        ("defaults.timeout = inf", ("[defaults] timeout",)),
        ("defaults.timeout = 2020-01-01", ("[defaults] timeout", "a date")),
        ("defaults.concurrency = 1.0", ("[defaults] concurrency", "a whole number")),
        ("defaults.concurrency = 0", ("[defaults] concurrency", "1 or more")),
        ("defaults.device = []", ("[defaults] device", "text", "a list")),
        ("defaults.headers.X = 'y'", ("[defaults] headers", "credential")),
        ("defaults.retry = 3", ("[defaults] retry", "a table", "attempts")),
        ("defaults.retry.attemps = 3", ("[defaults] retry.attemps", "'attempts'")),
        ("defaults.retry.attempts = 'x'", ("[defaults] retry.attempts", "a whole number")),
        ("defaults.retry.attempts = 0", ("[defaults] retry", "attempts is 0")),
        ("defaults.retry.statuses = ['x']", ("[defaults] retry.statuses.0", "a whole number")),
        ("profiles.p.model.m = 'echo:'", ("[profiles.p] model", "'models'")),
        ("profiles.p.defaults.timeout = 'x'", ("[profiles.p.defaults] timeout",)),
        ("profiles.p = 3", ("profiles.p", "a table")),
    ],
)
def test_what_is_wrong_in_a_file_names_file_table_and_key(place: Place, text: str, parts: tuple[str, ...]) -> None:
    file = place.project(text)
    message = place.wrong()
    for part in (str(file), *parts):
        assert part in message


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"a = 1\n\ntimeout =\n", "line 3"),
        (b"\xef\xbb\xbf[models]\n", "byte order mark (line 1)"),
        (b"[models]\nm = '\xff'\n", "UTF-8 (line 2)"),
        ("[models]".encode("utf-16"), "UTF-8 (line 1)"),
        (b"a = " + b"[" * 5000, "nested"),
        (b"a = " + b"9" * 5000, "too long"),
        (b"a = '" + b"x" * (1 << 20) + b"'", "bytes"),
        (b"a = 1\na = 1", "line 2"),
        (b"a = '''", "line 1, the end"),
    ],
)
def test_a_file_that_cant_be_read_is_a_config_error_with_its_line(place: Place, data: bytes, part: str) -> None:
    file = place.work / "aiaas.toml"
    file.write_bytes(data)
    text = place.wrong()
    assert str(file) in text
    assert part in text


def test_a_folder_in_the_files_place_is_an_error_and_a_missing_home_is_none(place: Place) -> None:
    place.home.rmdir()
    place.read()
    _write(place.home, "a file where the folder should be")
    place.read()
    (place.work / "aiaas.toml").mkdir()
    assert str(place.work / "aiaas.toml") in place.wrong()


def test_a_file_that_the_system_refuses_is_an_error(place: Place) -> None:
    (place.work / "aiaas.toml").symlink_to("aiaas.toml")  # a loop; unlike a permission it stops root too
    assert "can't be read" in place.wrong()


# ---------------------------------------------------------------- trust and credentials
@pytest.mark.parametrize(
    "text",
    [
        f'trust.keys = ["{KEY}"]',
        "trust = {}",
        f'credentials."https://h".api_key = "{SECRET}"',
        'credentials."https://h".api_key_env = "VAR"',
        f'defaults.verify = ["{KEY}"]',
        'models.m = { address = "echo:", api_key_env = "VAR" }',
        'models.m = { address = "echo:", api_key_file = "f" }',
        f'models.m = {{ address = "echo:", api_key = "{SECRET}" }}',
    ],
)
def test_a_working_folders_file_names_no_keys(place: Place, text: str) -> None:
    file = place.project(text)
    message = place.wrong()
    assert str(file) in message
    assert "AIAAS_HOME" in message
    assert "AIAAS_CONFIG" in message
    assert SECRET not in message


def test_the_users_file_trusts_keys(place: Place) -> None:
    place.users(f'trust.keys = ["{KEY}"]\ndefaults.verify = ["{KEY}"]')
    settings = place.read()
    assert settings.trust == (KEY,)
    assert settings.defaults[0] == {"verify": (KEY,)}


def test_the_users_folder_is_found_without_aiaas_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIAAS_HOME")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "aiaas").mkdir()
    file = _write(tmp_path / "aiaas" / "aiaas.toml", 'models.m = "echo:"')
    assert read().resolve("m").sources == {"address": f"{file} [models] m"}


def test_another_key_than_keys_is_named(place: Place) -> None:
    place.users("trust.key = []")
    assert "[trust] key is unknown. Did you mean 'keys'" in place.wrong()


@pytest.mark.parametrize(
    "keys",
    ["'ed25519:é'", "'x'", "['ed25519:']", "['ed25519:AAAA']", "['AAAA']", "[3]", "['ed25519:!']"],
)
def test_what_is_no_public_key_is_refused(place: Place, keys: str) -> None:
    place.users(f"trust.keys = {keys}")
    assert "[trust] keys" in place.wrong()


def test_a_credential_belongs_to_its_origin(place: Place) -> None:
    file = place.users(f'credentials."HTTPS://Host:443/".api_key = " {SECRET} "')
    settings = place.read()
    for origin in ("https://host", "https://HOST:443", "https://host/"):
        secret = settings.credential(origin)
        assert secret is not None
        assert (secret.reveal(), secret.source) == (SECRET, f"{file} [credentials]")
    for other in ("http://host", "https://host:444", "https://host.evil", "https://evil", "https://host@evil", "host"):
        assert settings.credential(other) is None


def test_a_variable_and_a_file_are_read_when_used(place: Place) -> None:
    place.users("""
        [credentials."https://a"]
        api_key_env = "VAR"
        [credentials."https://b"]
        api_key_file = "keys/b"
    """)
    environ = dict(place.environ)
    settings = read(place.work, environ)
    a, b = settings.credential("https://a"), settings.credential("https://b")
    assert a is not None
    assert b is not None
    with pytest.raises(ConfigError, match="environment variable VAR is empty"):
        a.reveal()
    with pytest.raises(ConfigError, match=f"{place.home}/keys/b"):
        b.reveal()
    environ["VAR"] = f"{SECRET}\n"
    (place.home / "keys").mkdir()
    _write(place.home / "keys" / "b", f"{SECRET}\n")
    assert (a.reveal(), a.source) == (SECRET, "environment variable VAR")
    (place.home / "keys" / "c").write_bytes(b"\xff")
    place.users('credentials."https://c".api_key_file = "keys/c"')
    c = read(place.work, environ).credential("https://c")
    assert c is not None
    with pytest.raises(ConfigError, match="isn't UTF-8"):
        c.reveal()
    assert (b.reveal(), b.source) == (SECRET, f"file {place.home}/keys/b")


@pytest.mark.parametrize(
    ("table", "part"),
    [
        ("3", "a table"),
        ("{}", "exactly one"),
        ("{ api_key_env = 'A', api_key_file = 'b' }", "exactly one"),
        ("{ api_key_evn = 'A' }", "'api_key_env'"),
        ("{ api_key_env = 3 }", "api_key_env"),
        ("{ api_key_env = 'sk-the-key-itself' }", "api_key_env isn't the name of a variable"),
        ("{ api_key = '' }", "api_key"),
    ],
)
def test_a_wrong_credential_is_named(place: Place, table: str, part: str) -> None:
    place.users(f'credentials."https://h" = {table}')
    text = place.wrong()
    assert '[credentials."https://h"]' in text
    assert part in text


@pytest.mark.parametrize("origin", ["https://me:s3cret@h", "h", "https://h/v1", "ftp://h", "https://h:x"])
def test_what_is_no_origin_is_refused_and_not_repeated(place: Place, origin: str) -> None:
    place.users(f'credentials."{origin}".api_key_env = "A"')
    assert "s3cret" not in place.wrong()


def test_one_origin_twice_is_an_error(place: Place) -> None:
    place.users('[credentials]\n"https://h".api_key_env = "A"\n"https://H:443".api_key_env = "B"')
    assert "twice" in place.wrong()


@pytest.mark.parametrize(
    "rest",
    ["", "=", "models = 3", "defaults.timeout = 0", "trust.keys = 3", "profiles.p.x = 1", "models.m.api_key = 1"],
)
def test_no_message_repr_or_traceback_with_locals_holds_a_key(place: Place, rest: str) -> None:
    place.users(f'{rest}\n[credentials."https://h"]\napi_key = "{SECRET}"\n')
    caught, shown = _outcome(place)
    assert (caught is None) == (not rest)
    assert caught is None or caught.__context__ is None
    assert SECRET not in shown


def _outcome(place: Place) -> tuple[AiaasError | None, str]:
    try:
        settings = place.read()
    except AiaasError as error:
        report = traceback.TracebackException.from_exception(error, capture_locals=True)
        return error, "".join(report.format())
    return None, f"{settings!r} {settings.documents!r} {settings.credential('https://h')!r}"


# ---------------------------------------------------------------- properties, cost
@given(host=st.from_regex(r"[a-zA-Z0-9.-]{1,20}", fullmatch=True), port=st.none() | st.integers(1, 65535))
def test_an_origin_has_one_form(host: str, port: int | None) -> None:
    for scheme in ("http", "https"):
        text = f"{scheme}://{host}" + (f":{port}" if port else "")
        form = origin_of(text)
        assert form is not None
        assert origin_of(form) == origin_of(text.upper()) == origin_of(f"{text}/") == form


@given(text=st.text(max_size=200))
def test_any_text_is_settings_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "aiaas.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(ConfigError):
        read(folder, {"AIAAS_HOME": str(folder / "own")})


def test_reading_is_quick_and_loads_nothing_heavy(place: Place) -> None:
    place.project("".join(f'models.m{i} = {{ address = "echo:", timeout = {i + 1} }}\n' for i in range(10)))
    code = (
        "import sys; from pathlib import Path; from aiaas_sdk.settings import read\n"
        "read(Path(sys.argv[1])).resolve('m3')\n"
        "print(*({'pydantic', 'numpy', 'torch', 'httpx', 'difflib'} & sys.modules.keys()))"
    )
    environ = {**place.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code, str(place.work)], env=environ, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")
    assert min(_seconds(place) for _ in range(20)) < 0.002


def _seconds(place: Place) -> float:
    start = time.perf_counter()
    place.read().resolve("m3")
    return time.perf_counter() - start
