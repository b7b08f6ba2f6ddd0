"""Model cards: what is known stands there, what isn't is said to be unknown, and no text of a stranger is markup."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt
from typer.testing import CliRunner

import aiaas_sdk as aiaas
from aiaas_sdk.cards import card
from aiaas_sdk.cli.app import app
from aiaas_sdk.records.model import ModelInfo, TensorSpec
from aiaas_sdk.server import serve_in_thread

READER = MarkdownIt("commonmark").enable("table").enable("strikethrough")


def shown(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["info", *arguments])
    assert result.exit_code == code, result.output
    return result.stdout


def rows(text: str) -> dict[str, str]:
    """What the tables of two columns say, as a reader sees it; in the last ones, of training, by `tables`."""
    return {name: value for table in reversed(tables(text)) for name, value in table.items()}


def tables(text: str) -> list[dict[str, str]]:
    pattern = r"<tr>\s*<td[^>]*>(.*?)</td>\s*<td[^>]*>(.*?)</td>\s*</tr>"
    return [dict(re.findall(pattern, table)) for table in READER.render(text).split("<table>")[1:]]


@pytest.fixture
def untrained(tmp_path: Path) -> str:
    pytest.importorskip("torch")
    aiaas.create(
        f"torch:{tmp_path / 'kinds'}",
        architecture="mlp",
        inputs={"x": ("FP32", [-1, 3])},
        labels=["cat", "dog"],
        seed=1,
    ).close()
    return f"torch:{tmp_path / 'kinds'}"


def test_an_untrained_model(untrained: str) -> None:
    text = shown(untrained, "--card")
    found = rows(text)
    assert text.startswith("# kinds\n")
    assert (found["version"], found["architecture"], found["parameters"]) == ("1", "mlp", "386")
    size = sum(f.stat().st_size for f in Path(untrained.removeprefix("torch:")).glob("1/*.safetensors"))
    assert found["size"].startswith(f"{size:,} bytes")
    with aiaas.load(untrained) as model:
        assert found["digest"] == model.info().metadata["digest"]
    assert re.fullmatch(r"ed25519:[\w+/=]{44}", found["signed by"])
    assert "<td>input</td>\n<td>x</td>\n<td>FP32</td>\n<td>[-1, 3]</td>" in READER.render(text)
    assert "Labels (2): cat, dog." in text
    assert found["trained from version"] == found["rows"] == "not known"
    assert "Settings and metrics are not known." in text


def test_a_trained_model_tells_its_data_its_settings_and_its_metrics(untrained: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)).astype(np.float32), np.arange(40) % 2
    with aiaas.load(untrained) as model:
        parent = model.info().metadata["digest"]
        run = model.fit(x, y, epochs=2, batch_size=8, optimizer="sgd", learning_rate=0.05, seed=5)
        run.result().close()
        text = shown(untrained, "--card")
    found, (metrics, ran, settings) = rows(text), tables(text)[4:7]
    assert (found["version"], found["versions that there are"]) == ("2", "1, 2")
    assert (found["trained from version"], found["its digest"]) == ("1", parent)
    assert found["rows"] == "40"
    assert (settings["optimizer"], settings["learning_rate"], settings["seed"], settings["clip_norm"]) == (
        "sgd", "0.05", "5", "not given",
    )  # fmt: skip
    assert ran["epochs"] == settings["epochs"] == "2"
    assert float(metrics["loss"]) == pytest.approx(run.history["loss"][-1], rel=1e-5)
    assert float(metrics["accuracy"]) == pytest.approx(run.history["accuracy"][-1], rel=1e-5)
    assert "torch 2." in found["made with"]


def test_an_imported_model(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("tokenizers")
    from aiaas_sdk.architectures.transformer import Transformer
    from aiaas_sdk.backends.torch.importing import import_model
    from tests.language.conftest import as_llama, tokenizer

    words = tokenizer()
    model = Transformer("decoder", words.get_vocab_size(), 32, 2, 4, context=64, tied=False)
    import_model(as_llama(model, words, tmp_path / "theirs"), tmp_path / "ours")
    found = rows(shown(f"torch:{tmp_path / 'ours'}", "--card"))
    assert found["imported"] == "theirs"
    assert found["parameters"] == f"{sum(p.numel() for p in model.parameters()):,}"
    assert found["architecture"] == "transformer"
    assert "generate" in found["verbs"]
    assert found["trained from version"] == "not known"


def test_a_model_behind_an_endpoint_has_the_card_that_it_has_here(untrained: str) -> None:
    here = rows(shown(untrained, "--card"))
    with serve_in_thread([untrained]) as url:
        there = rows(shown(f"{url}/v2/models/kinds", "--card"))
    for name in ("version", "architecture", "parameters", "size", "digest", "signed by", "created", "made with"):
        assert there[name] == here[name]


def test_of_a_stranger_s_server_little_is_known() -> None:
    found = rows(shown("echo:?x=FP32[-1,3]", "--card"))
    assert {found[name] for name in ("architecture", "parameters", "size", "digest", "signed by")} == {"not known"}


HOSTILE = [
    "<script>alert(1)</script>",
    "![x](https://evil.example/a.png)",
    "[x](javascript:alert(1))",
    "a | b\n\n# head",
    "`code` *bold* _it_ ~~no~~ **b** __c__",
    "&lt;b&gt; &amp;",
    "<https://evil.example> www.evil.example a@evil.example",
    "\\| \\\\ \\",
    "\x1b[31mred\x00",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_strangers_is_shown_as_it_is(text: str) -> None:
    """In a name, a label, a tensor's name, a fact's name and its value."""
    spec = TensorSpec(text, "FP32", (-1,))
    lineage = {"imported": text, "settings": {text: text}, "training": {"metrics": {text: 0.5}}}
    info = ModelInfo(name=text, version=text, inputs=(spec,), labels=(text,), metadata={text: text, "lineage": lineage})
    made = card(info)
    page = READER.render(made)
    assert {*re.findall(r"<(\w+)", page)} == {"h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td"}
    assert page.count("<h1>") == 1
    assert page.count("<h2>") == 5
    plain = "".join(c if c.isprintable() else " " for c in text).strip()
    wanted = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    assert page.count(wanted) >= 8
    for link in ("http://", "https://", "www."):
        assert link not in made


def test_facts_of_any_shape_make_a_card() -> None:
    """A server may say anything."""
    odd = {
        "lineage": [1],
        "parameters": "many",
        "size": {"a": None},
        "digest": 5,
        "more": float("nan"),
        "x": "y" * 9999,
    }
    text = card(ModelInfo(name="", labels=tuple(map(str, range(300))), metadata=odd))
    assert "and 200 more" in text
    assert len(text) < 4000
    assert rows(text)["parameters"] == "many"


def test_a_card_is_not_json() -> None:
    assert CliRunner().invoke(app, ["info", "echo:", "--card", "--json"]).exit_code != 0
