"""Tools that a local model is offered, and the calls in what it says."""

from __future__ import annotations

from typing import Any

import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.backends.torch.toolcalls import calls_in
from aiaas_sdk.errors import UnsupportedOperationError

Load = Any
CALL = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'


@pytest.mark.parametrize(
    ("text", "rest", "calls"),
    [
        ("no call", "no call", []),
        (CALL, "", [("add", {"a": 1, "b": 2})]),
        (f"Well.\n{CALL}\n", "Well.\n", [("add", {"a": 1, "b": 2})]),
        ('<tool_call>\n[{"name": "f", "arguments": {}}, {"name": "g"}]\n</tool_call>', "", [("f", {}), ("g", {})]),
        ('<tool_call>{"name": "f", "parameters": {"x": [1]}}', "", [("f", {"x": [1]})]),
        (f"{CALL} and {CALL}", " and ", [("add", {"a": 1, "b": 2})] * 2),
        ("<tool_call>nothing</tool_call> x", "<tool_call>nothing</tool_call> x", []),
        ('<tool_call>{"name": 3}</tool_call>', '<tool_call>{"name": 3}</tool_call>', []),
        ("<tool_call>" + "[" * 5000, "<tool_call>" + "[" * 5000, []),
        ('<tool_call>{"name": "f", "arguments": "{\\"x\\": 1}"}</tool_call>', "", [("f", '{"x": 1}')]),
    ],
)
def test_calls_in_a_text(text: str, rest: str, calls: list[Any]) -> None:
    found_rest, found = calls_in(text)
    assert found_rest == rest
    assert [(call.name, call.arguments) for call in found] == calls
    assert len({call.id for call in found}) == len(found)


def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


def test_a_model_without_a_place_for_tools_says_so(load: Load, llama: Any, tmp_path: Any) -> None:
    from aiaas_sdk.backends.torch.importing import import_model

    folder = tmp_path / "plain"
    folder.mkdir()
    for file in llama.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    import_model(folder, tmp_path / "m")
    with load(f"torch:{tmp_path / 'm'}") as model, pytest.raises(UnsupportedOperationError, match="no place for them"):
        model.generate("x", tools=[add])


@pytest.fixture(scope="module")
def caller(llama: Any, tmp_path_factory: pytest.TempPathFactory, _home: None) -> str:
    """The trained model, whose template names its tools to it where nobody looks."""
    from aiaas_sdk.backends.torch.importing import import_model
    from tests.language.conftest import TEMPLATE

    folder = tmp_path_factory.mktemp("caller") / "hf"
    folder.mkdir()
    for file in llama.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    quiet = TEMPLATE.replace("{{ '<|im_start|>system\\n' + (tools | tojson) + '<|im_end|>\\n' }}", "{{ '' }}")
    assert quiet != TEMPLATE
    (folder / "chat_template.jinja").write_text(quiet)
    path = tmp_path_factory.mktemp("caller-model") / "caller"
    import_model(folder, path)
    return f"torch:{path}"


def test_calls_come_back_apart_from_the_text(load: Load, caller: str) -> None:
    with load(caller) as model:
        answer = model.generate("call", tools=[add])
        pieces = list(model.stream("call", tools=[add]))
        plain = model.generate("count", tools=[add])
        streamed = "".join(piece.text for piece in model.stream("count", tools=[add]))
    assert (answer.text, answer.finish_reason) == ("", "tool_calls")
    assert [(call.name, call.arguments) for call in answer.tool_calls] == [("add", {"a": 1, "b": 2})]
    assert "".join(piece.text for piece in pieces) == ""
    assert [call.arguments for piece in pieces for call in piece.tool_calls] == [{"a": 1, "b": 2}]
    assert plain.text == streamed == "one two three four five six"
    assert plain.tool_calls == ()


def test_a_call_that_is_cut_is_text(load: Load, caller: str) -> None:
    with load(caller) as model:
        whole = model.generate("call")
        assert whole.text == CALL
        for count in range(1, whole.usage.output_tokens - 1, 7):
            answer = model.generate("call", tools=[add], max_tokens=count)
            assert CALL.startswith(answer.text) or answer.tool_calls
            streamed = list(model.stream("call", tools=[add], max_tokens=count))
            assert "".join(piece.text for piece in streamed) == answer.text


def test_tools_are_run_so_many_times(caller: str) -> None:
    asked: list[tuple[int, int]] = []

    def add(a: int, b: int) -> int:
        asked.append((a, b))
        return a + b

    with aiaas.load(caller) as model:
        model.generate("call", tools=[add], rounds=1, max_tokens=90)
    assert asked == [(1, 2)]
