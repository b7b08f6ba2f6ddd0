"""Pictures: what they show, opened with pillow; and pages without scripts."""

from __future__ import annotations

import io
import re
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiaas_sdk as aiaas
from aiaas_sdk.pictures import palette
from aiaas_sdk.records.call import Call
from aiaas_sdk.records.explanation import Explanation

image = pytest.importorskip("PIL.Image")
RED, BLUE = (103, 0, 31), (5, 48, 97)


def explanation(arrays: dict[str, Any], inputs: dict[str, Any] | None = None, **more: Any) -> Explanation:
    call = Call("explain", model="model", version="3")
    told = {"method": "occlusion", "target": None, "completeness_error": None, **more}
    return Explanation(call, arrays, inputs if inputs is not None else arrays, **told)


def seen(path: Path) -> Any:
    with image.open(path) as opened:
        assert opened.format == "PNG"
        return np.asarray(opened.convert("RGB")).astype(int)


def has(pixels: Any, colour: tuple[int, int, int], about: int = 3) -> bool:
    return bool((np.abs(pixels - colour).max(-1) <= about).any())


def a_picture(**more: Any) -> Explanation:
    values = np.zeros((1, 1, 28, 28), np.float32)
    values[0, 0, 4:8, 4:8], values[0, 0, 20:24, 20:24] = 2, -2
    return explanation({"images": values}, {"images": np.full_like(values, 0.5)}, **more)


def test_a_map_lies_over_the_picture(tmp_path: Path) -> None:
    path = a_picture().plot(tmp_path / "map.png")
    assert path == tmp_path / "map.png"
    pixels = seen(path)
    assert pixels.shape[1] == 760
    over = pixels[:, 24 + 280 + 18 : 24 + 280 + 18 + 280]
    where = np.argwhere(np.abs(over - RED).max(-1) <= 3)
    # a tenth of the picture's width a pixel: the red square stands above and left of the blue one
    assert len(where) == pytest.approx(40 * 40, rel=0.1)
    against = np.argwhere(np.abs(over - BLUE).max(-1) <= 3)
    assert (against.min(0) - where.min(0)).tolist() == [160, 160]
    left = pixels[80:330, 30:300]
    assert (left.max(-1) == left.min(-1)).mean() > 0.95, "the picture itself is grey"
    legend = pixels[:, 24 + 2 * 298 : 24 + 2 * 298 + 14]
    assert has(legend, RED, 8)
    assert has(legend, BLUE, 8)
    assert has(legend, (255, 255, 255))


@pytest.mark.parametrize(
    "shape", [(1, 3, 20, 30), (1, 20, 30, 3), (1, 20, 30), (2, 12, 40), (1, 1, 300, 400), (1, 1, 1), (1, 2, 1, 900)]
)
def test_pictures_of_any_layout(tmp_path: Path, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    pixels = seen(explanation({"x": x}).plot(tmp_path / "x.png"))
    assert has(pixels, RED, 60)


def test_values_that_are_no_numbers_or_all_zero_can_be_drawn(tmp_path: Path) -> None:
    for value in (0.0, np.nan, np.inf):
        x = np.full((1, 1, 8, 8), value, np.float32)
        seen(explanation({"x": x}).plot(tmp_path / "x.png"))
        explanation({"x": x}).plot(tmp_path / "x.html")


def test_bars_of_a_table_have_names_and_signs(tmp_path: Path) -> None:
    values = np.array([[3.0, -1.5, 0.0]], np.float32)
    found = explanation({"x": values}, names=("age", "income", "height"), target=(1,), labels=("no", "yes"))
    pixels = seen(found.plot(tmp_path / "bars.png"))
    red = np.argwhere(np.abs(pixels - palette.colours(np.array(1.0), 1.6).round()).max(-1) <= 2)
    blue = np.argwhere(np.abs(pixels - palette.colours(np.array(-1.0), 1.6).round()).max(-1) <= 2)
    assert blue[:, 1].max() <= red[:, 1].min() + 1, "left and right of zero"
    assert np.ptp(red[:, 1]) == pytest.approx(2 * np.ptp(blue[:, 1]), rel=0.02)
    page = found.plot(tmp_path / "bars.html").read_text()
    assert re.findall(r'class="name">(\w+)<', page) == ["age", "income", "height"]
    assert "row 0, target yes" in page


def test_several_rows_begin_with_what_matters_over_all(tmp_path: Path) -> None:
    values = np.array([[1.0, -5.0], [1.0, 5.0]], np.float32)
    page = explanation({"x": values}).plot(tmp_path / "rows.html").read_text()
    assert re.findall(r"<h2>([^<]*)", page) == ["mean size over 2 rows", "row 0", "row 1"]
    assert re.findall(r'class="name">([^<]*)<', page)[:2] == ["x[1]", "x[0]"]


def test_of_many_rows_sixteen_are_shown(tmp_path: Path) -> None:
    page = explanation({"x": np.ones((40, 2), np.float32)}).plot(tmp_path / "rows.html").read_text()
    assert "16 of 40 rows are shown" in page
    assert page.count("<h2>") == 17


def tokens() -> Explanation:
    words = ("<script>alert(1)</script>", "good", "bad\n", "\u202eevil", "日本")
    return explanation(
        {"tokens": np.array([[0.1, 1, -1, 0, 0.5]], np.float32)},
        {},
        tokens=(words,),
        method="integrated_gradients",
        completeness_error=0.00042,
    )


def test_tokens_are_coloured(tmp_path: Path) -> None:
    pixels = seen(tokens().plot(tmp_path / "tokens.png"))
    assert has(pixels, RED)
    assert has(pixels, BLUE)


def test_a_page_has_no_script_and_fetches_nothing(tmp_path: Path) -> None:
    for found in (tokens(), a_picture(labels=("<b>",), target=(0,))):
        page = found.plot(tmp_path / "page.html").read_text("utf-8")
        assert "<script" not in page.lower()
        assert not re.search(r"(?:src|href|url)\s*[=(]\s*(?![\"']?data:)", page)
        assert "<b>" not in page
        assert "default-src 'none'" in page
    assert "&lt;b&gt;" in page
    told = tokens().plot(tmp_path / "page.html").read_text("utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in told
    assert "bad\\n" in told
    assert "\u202e" not in told, "what turns text around is written out"
    assert "completeness error 0.00042" in told
    assert palette.css(1, 1) in told


def test_a_page_carries_its_pictures(tmp_path: Path) -> None:
    page = a_picture().plot(tmp_path / "page.html").read_text()
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    with image.open(io.BytesIO(b64decode(data))) as opened:
        assert has(np.asarray(opened.convert("RGB")).astype(int), RED)


def test_what_cannot_be_drawn_says_so(tmp_path: Path) -> None:
    with pytest.raises(aiaas.InputError, match=r"ends in \.png or \.html"):
        a_picture().plot(tmp_path / "x.jpg")
    with pytest.raises(aiaas.InputError, match="no rows"):
        explanation({"x": np.zeros((0, 2), np.float32)}).plot(tmp_path / "x.png")
    with pytest.raises(aiaas.InputError, match="has no picture"):
        explanation({"x": np.zeros((1, 2, 3, 4, 5), np.float32)}).plot(tmp_path / "x.png")
    with pytest.raises(aiaas.ConfigError, match="can't be written"):
        a_picture().plot(tmp_path / "nowhere" / "x.png")


def test_the_palette_diverges_from_white() -> None:
    most = 4.0
    assert palette.css(0, most) == "#ffffff"
    assert palette.css(4, most) == palette.css(9, most) == "#67001f"
    assert palette.css(-4, most) == "#053061"
    assert palette.css(float("nan"), most) == "#ffffff"
    assert (palette.ink(4, most), palette.ink(0, most)) == ("#ffffff", "#111111")
