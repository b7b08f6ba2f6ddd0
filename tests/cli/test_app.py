"""The commands, run in this process."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import aiaas_sdk as aiaas
from aiaas_sdk.cli.app import app
from aiaas_sdk.cli.exits import code_of

ECHO = "echo:?x=FP32[-1,3]"
COMMANDS = ("serve", "info", "predict", "chat", "embed", "compare", "import", "backends", "doctor")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    np.save("x.npy", np.array([[1, 2, 3], [4, 5, 6]], np.float32))


@pytest.fixture
def kinds(tmp_path: Path) -> str:
    """An untrained model x FP32 [-1,3] -> scores of two labelled classes."""
    pytest.importorskip("torch")
    with aiaas.create(
        "torch:kinds", architecture="mlp", inputs={"x": ("FP32", (-1, 3))}, labels=["cat", "dog"], seed=1
    ):
        return "torch:kinds"


def run(*arguments: str, code: int = 0, given: str | None = None) -> Any:
    result = CliRunner().invoke(app, list(arguments), input=given)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def document(*arguments: str, code: int = 0, given: str | None = None) -> Any:
    """The one JSON document on stdout."""
    return json.loads(run(*arguments, "--json", code=code, given=given).stdout)


# ---------------------------------------------------------------- help
def test_help_teaches_addresses_commands_and_exit_codes() -> None:
    text = run("--help").stdout
    assert "scheme:target@version" in text
    for line in (*COMMANDS, "Exit codes", "130  interrupted"):
        assert line in text


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command: str) -> None:
    text = run(command, "--help").stdout
    assert "Exit codes" in text
    assert command == "backends" or f"    aiaas {command} " in text
    assert command != "new-backend" or '-e ".[test]"' in text  # brackets are markup there


def test_the_version_is_shown() -> None:
    assert run("--version").stdout == f"aiaas-sdk {aiaas.__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["predict"], ["predict", ECHO, "x.npy", "--top", "0"], ["info", ECHO, "--timeout", "x"]]
)
def test_a_wrong_command_line_exits_with_2(arguments: list[str]) -> None:
    assert run(*arguments, code=2).stdout == ""


# ---------------------------------------------------------------- info, backends
def test_info_shows_what_the_model_says(kinds: str) -> None:
    text = run("info", kinds).stdout
    assert "input         x FP32 [-1, 3]" in text
    assert "labels        2: cat, dog" in text
    assert document("info", kinds)["labels"] == ["cat", "dog"]


def test_backends_lists_all_and_imports_none_unless_it_is_to_check() -> None:
    assert "echo" in run("backends").stdout
    found = document("backends", "--check")
    assert found["echo"]["state"] == "ready"
    assert found["oip"]["distribution"] == "aiaas-sdk"


def test_a_broken_plugin_is_listed_and_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "aiaas_bad-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: aiaas-bad\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[aiaas_sdk.backends]\nbad = aiaas_bad\n")
    (tmp_path / "aiaas_bad.py").write_text("import nothing_of_this_name\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert document("backends")["bad"]["state"] == "ready"
    assert document("backends", "--check")["bad"]["state"].startswith("broken: ModuleNotFoundError")
    assert "aiaas-bad" in run("backends").stdout
    assert "can't be loaded" in run("info", "bad:x", code=2).stderr


# ---------------------------------------------------------------- predict
def test_predict_writes_json_to_stdout(kinds: str) -> None:
    assert json.loads(run("predict", ECHO, "x.npy").stdout) == {"x": [[1, 2, 3], [4, 5, 6]]}
    found = document("predict", kinds, "x.npy")
    assert (found["model"], found["version"], found["backend"], found["rows"]) == ("kinds", "1", "torch", 2)
    assert np.shape(found["outputs"]["logits"]) == (2, 2)


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".json", ".csv"])
def test_predict_writes_the_file_that_is_named(suffix: str) -> None:
    assert run("predict", ECHO, "x.npy", "-o", f"y{suffix}").stdout == ""
    assert json.loads(run("predict", ECHO, f"y{suffix}").stdout) == {"x": [[1, 2, 3], [4, 5, 6]]}
    found = document("predict", ECHO, "x.npy", "-o", f"y{suffix}")
    assert (found["output"], found["outputs"]) == (f"y{suffix}", None)


def test_predict_reads_json_from_stdin() -> None:
    assert json.loads(run("predict", ECHO, "-", given="[[1, 2, 3]]").stdout) == {"x": [[1, 2, 3]]}
    assert "stdin isn't JSON" in run("predict", ECHO, "-", given="[", code=2).stderr


def test_the_best_classes_are_given_with_their_labels(kinds: str) -> None:
    best = json.loads(run("predict", kinds, "x.npy", "--top", "1").stdout)
    assert [len(row) for row in best] == [1, 1]
    assert {row[0][0] for row in best} <= {"cat", "dog"}
    run("predict", kinds, "x.npy", "--top", "2", "-o", "top.csv")
    assert len(Path("top.csv").read_text().splitlines()) == 5


def test_many_rows_go_in_batches_and_come_back_in_order() -> None:
    rows = np.arange(300, dtype=np.float32).reshape(100, 3)
    np.save("many.npy", rows)
    run("predict", ECHO, "many.npy", "--batch-size", "7", "-o", "out.npy")
    assert np.array_equal(np.load("out.npy"), rows)


def test_a_model_without_a_signature_or_free_rows_is_called_whole() -> None:
    assert json.loads(run("predict", "echo:", "x.npy").stdout) == {"input": [[1, 2, 3], [4, 5, 6]]}
    assert json.loads(run("predict", "echo:?x=FP32[2,3]", "x.npy").stdout)["x"][1] == [4, 5, 6]
    assert json.loads(run("predict", ECHO, "-", given='{"x": []}', code=2).stdout or "null") is None


def test_images_are_taken(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for name in ("a.png", "b.png"):
        image.new("L", (2, 2), 255).save(name)
    found = json.loads(run("predict", "echo:?x=FP32[-1,1,2,2]", "a.png", "b.png").stdout)
    assert found["x"] == [[[[1, 1], [1, 1]]]] * 2
    assert "--resize" in run("predict", "echo:?x=FP32[-1,1,3,3]", "a.png", code=2).stderr


def test_the_bar_is_drawn_on_a_terminal_only(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from aiaas_sdk.cli.predicting import predict

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    rows = {"x": np.zeros((40, 3), np.float32)}
    with aiaas.load(ECHO) as model:
        predict(model, rows)
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(sys, "stderr", Terminal())
        monkeypatch.setenv("TERM", "xterm")
        predict(model, rows)
        assert "40/40" in sys.stderr.getvalue()  # type: ignore[attr-defined]


def test_a_module_of_the_working_folder_can_be_imported_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("of_the_operator.py").write_text("from pathlib import Path\nPath('imported').touch()\n")
    run("info", ECHO, "--import", "of_the_operator")
    assert Path("imported").exists()
    assert "--import no_such_module failed" in run("info", ECHO, "--import", "no_such_module", code=2).stderr


# ---------------------------------------------------------------- compare
def test_compare_exits_with_0_where_equal_and_1_where_not(kinds: str) -> None:
    torch = pytest.importorskip("torch")
    from aiaas_sdk.architectures.mlp import MLP

    torch.manual_seed(7)
    aiaas.save(MLP(features=3, classes=2), "kinds", example=np.zeros((1, 3), np.float32), labels=["cat", "dog"])
    assert "equal within" in run("compare", kinds, kinds, "x.npy", "--repeat", "2").stdout
    text = run("compare", f"{kinds}@1", f"{kinds}@2", "x.npy", "--repeat", "0", code=1).stdout
    assert "cause: version: a has 1, b has 2" in text
    found = document("compare", f"{kinds}@1", f"{kinds}@2", "x.npy", "--atol", "100", "--repeat", "1")
    assert found["equal"] is True
    assert (found["a"], found["b"]) == ("torch:kinds@1", "torch:kinds@2")
    assert set(found["latency"]["a"]) == {"p50", "p99", "rows_per_s"}


def test_a_device_is_for_the_models_that_have_one(kinds: str) -> None:
    run("compare", kinds, kinds, "x.npy", "--device", "cpu", "--repeat", "0")
    run("compare", ECHO, "echo:?x=FP32[-1,-1]", "x.npy", "--device", "cpu", "--repeat", "0")
    assert "no use for the option 'device'" in run("info", ECHO, "--device", "cpu", code=2).stderr


# ---------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["info", "nosuchname"], 2, "no settings define it"),
        (["info", "nosuch:x"], 2, "no installed backend"),
        (["info", "https://user:secret@host/v2/models/x"], 2, "holds a user"),
        (["info", "torch:nowhere"], 3, "nowhere"),
        (["info", "http://127.0.0.1:9/v2/models/x"], 4, "can't connect"),
        (["info", "http://127.0.0.1:9/v2/models/x", "--api-key-env", "NO_SUCH_KEY"], 2, "NO_SUCH_KEY is empty"),
        (["predict", ECHO, "nothing.npy"], 2, "no file"),
        (["predict", "echo:?x=FP32[-1,4]", "x.npy"], 2, "wants FP32 [-1, 4]"),
        (["predict", ECHO, "x.npy", "-o", "y.txt"], 2, "no kind"),
        (["compare", ECHO, "echo:?x=FP32[-1,4]", "x.npy"], 2, "the two differ"),
    ],
)
def test_an_error_is_one_or_two_lines_and_a_code(arguments: list[str], code: int, message: str) -> None:
    result = run(*arguments, code=code)
    assert message in result.stderr
    assert result.stderr.startswith("aiaas: ")
    assert len(result.stderr.splitlines()) <= 2
    assert "secret" not in result.output
    assert result.stdout == ""
    found = document(*arguments, code=code)["error"]
    assert found["exit_code"] == code
    assert message in f"{found['message']} {found['hint']}"


def test_what_a_model_says_cannot_steer_the_terminal(capsys: Any) -> None:
    from aiaas_sdk.cli.exits import guarded

    with pytest.raises(typer.Exit), guarded(as_json=True, debug=False):
        raise aiaas.ModelError("it said \x1b[31mred\n\u202e", hint="look\x07")
    captured = capsys.readouterr()
    assert captured.err == "aiaas: it said  [31mred  \n  look \n"
    assert captured.out.isascii()


def test_a_fault_of_our_own_is_told_without_its_text(capsys: Any) -> None:
    from aiaas_sdk.cli.exits import guarded

    with pytest.raises(typer.Exit) as caught, guarded(as_json=False, debug=False):
        raise KeyError("secret")
    assert caught.value.exit_code == 5
    assert capsys.readouterr().err.startswith("aiaas: aiaas itself failed with KeyError\n  Run it again with --debug")


def test_debug_shows_the_traceback() -> None:
    result = CliRunner().invoke(app, ["info", "nosuch:x", "--debug"])
    assert result.exit_code == 2
    assert "Traceback" in result.stderr


def test_every_error_has_a_code() -> None:
    from aiaas_sdk import errors

    codes = {name: code_of(getattr(errors, name)("x")) for name in errors.__all__}
    assert set(codes.values()) == {2, 3, 4, 5}
    assert {name for name, code in codes.items() if code == 3} == {"ModelNotFoundError", "ModelNotReadyError"}
    assert codes["DeadlineExceededError"] == codes["TLSError"] == 4
    assert codes["ModelError"] == codes["ServerError"] == codes["BundleError"] == 5
    assert codes["AuthenticationError"] == codes["PayloadTooLargeError"] == 2


def test_import_into_a_bare_word_says_how_a_folder_is_written() -> None:
    said = run("import", "downloads/small", "small", code=2).stderr
    assert "import writes a bundle into a folder, and small is none" in said
    assert "Give a folder, such as models/small; small here is torch:small" in said
