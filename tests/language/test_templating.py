"""Conversations as text, by templates that strangers wrote."""

from __future__ import annotations

import time
from typing import Any

import pytest

from aiaas_sdk.backends.torch.templating import ChatTemplate, plain_text
from aiaas_sdk.errors import AiaasError, BundleError, InputError, ModelError
from aiaas_sdk.records.chat import ToolSpec
from aiaas_sdk.records.language import Message, ToolCall

HELLO = (Message("user", "hi"),)


def render(source: str, *messages: Message, tools: Any = ()) -> str:
    return ChatTemplate(source, "t").render(messages or HELLO, tools, begin="<s>", end="</s>")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ bos_token }}{{ messages[0]['content'] }}{{ eos_token }}", "<s>hi</s>"),
        ("{% for m in messages %}\n  {% if true %}\n{{ m.role }}\n  {% endif %}\n{% endfor %}", "user\n"),
        ("{% if add_generation_prompt %}go{% endif %}", "go"),
        ("{% for m in messages %}{% break %}{% endfor %}x", "x"),
        ("{{ {'a': '<&é>'} | tojson }}", '{"a": "<&é>"}'),
        ("{{ [1] | tojson(indent=1) }}", "[\n 1\n]"),
        ("{{ tools is none }}", "True"),
        ("{{ 'a' if tools else 'b' }}{{ missing }}", "b"),
        ("{{ 3 * 4 }}{{ range(3) | list }}", "12[0, 1, 2]"),
        ("{{ strftime_now('%Y') | length }}", "4"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "1"),
    ],
)  # fmt: skip
def test_what_templates_rely_on(source: str, text: str) -> None:
    assert render(source) == text


def test_roles_calls_and_tools() -> None:
    source = "{% for m in messages %}{{ m | tojson }}\n{% endfor %}{{ tools | tojson }}"
    tool = ToolSpec("add", "adds", {"type": "object"})
    said = Message("assistant", "", (ToolCall("c1", "add", {"a": 1}), ToolCall("c2", "add", '{"a": 2}')))
    text = render(
        source, Message("developer", "be"), said, Message("tool", "3", tool_call_id="c1", name="add"), tools=(tool,)
    )
    assert '{"role": "system", "content": "be"}' in text
    assert '"function": {"name": "add", "arguments": {"a": 2}}' in text
    assert '"tool_call_id": "c1"' in text
    assert '[{"type": "function", "function": {"name": "add", "description": "adds"' in text
    assert ChatTemplate(source, "t").takes_tools
    assert not ChatTemplate("{{ messages }}", "t").takes_tools


def test_a_template_may_refuse() -> None:
    with pytest.raises(InputError, match="chat template says: roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception.__globals__.os.getcwd() }}",
        "{% for i in range(400) %}{% for j in range(400) %}{{ j }}{% endfor %}{% endfor %}",
        "{% include '/etc/passwd' %}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ 'a' * 10**9 }}",
        "{{ 10 ** 10 ** 9 }}",
        "{{ [0] * 1000000000 }}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{% for i in range(9999) %}{% for i in range(9999) %}{{ 'abcdefgh' }}{% endfor %}{% endfor %}",
        "{{ messages[7].content }}{{ 1 / 0 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_a_hostile_template_gets_nowhere(source: str) -> None:
    begun = time.monotonic()
    with pytest.raises(AiaasError):
        render(source)
    assert time.monotonic() - begun < 20


def test_what_is_no_template() -> None:
    with pytest.raises(BundleError, match="isn't a chat template"):
        ChatTemplate("{% for %}", "t")
    with pytest.raises(ModelError, match="fails on this conversation"):
        render("{{ messages[0].content.nothing() }}")


def test_without_a_template() -> None:
    assert plain_text(HELLO) == "hi"
    assert plain_text((Message("system", "be"), *HELLO)) == "system: be\nuser: hi\nassistant:"
