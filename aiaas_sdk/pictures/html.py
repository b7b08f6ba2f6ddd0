"""A page as one HTML file: no script, nothing that is fetched, and every text escaped."""

from __future__ import annotations

import base64
from html import escape

import numpy as np

from aiaas_sdk.pictures import palette
from aiaas_sdk.pictures.scenes import Bars, Map, Page, Scene, Tokens

__all__ = ["page"]

_HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1e1e1e; background: #fff; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem }}
h1 {{ font-size: 1.3rem }} h2 {{ font-size: 1rem; margin: 1.6rem 0 .5rem }}
.note, .legend {{ color: #666; font-size: .85rem }}
.tokens span {{ padding: .1rem .25rem; margin: .1rem; border-radius: .2rem; display: inline-block; white-space: pre;
  border: 1px solid #e1e1e1 }}
.tokens small {{ display: block; text-align: center; font-size: .65rem; opacity: .8 }}
table {{ border-collapse: collapse; width: 100%; table-layout: fixed }}
td {{ padding: .1rem .4rem; overflow-wrap: anywhere }} td.name {{ text-align: right; width: 30% }}
td.size {{ width: 5rem; white-space: nowrap; text-align: right; font-variant-numeric: tabular-nums }}
.bar {{ height: 1rem; display: block }} .half {{ padding: 0 }} .left .bar {{ margin-left: auto }}
.left {{ border-right: 1px solid #969696 }}
img {{ max-width: 100%; image-rendering: pixelated }}
.scale {{ display: inline-block; width: 10rem; height: .8rem; vertical-align: middle; border: 1px solid #969696 }}
</style></head><body>
"""


def page(page: Page) -> bytes:
    parts = [_HEAD.format(title=escape(page.title)), f"<h1>{escape(page.title)}</h1>\n"]
    parts += [f'<p class="note">{escape(note)}</p>\n' for note in page.notes]
    parts += [f"<h2>{escape(scene.title)}</h2>\n{_scene(scene)}\n" for scene in page.scenes]
    return "".join([*parts, "</body></html>\n"]).encode()


def _scene(scene: Scene) -> str:
    if isinstance(scene, Map):
        return _map(scene)
    return _bars(scene) if isinstance(scene, Bars) else _tokens(scene)


def _map(scene: Map) -> str:
    from aiaas_sdk.pictures.png import map_png

    data = base64.b64encode(map_png(scene)).decode()
    return f'<img alt="The input, and its attributions over it" src="data:image/png;base64,{data}">'


def _bars(scene: Bars) -> str:
    most = max((abs(value) for value in scene.values), default=0.0) or 1.0
    rows = [_bar(name, value, most, scene.signed) for name, value in zip(scene.names, scene.values, strict=True)]
    return f"<table>{''.join(rows)}</table>"


def _bar(name: str, value: float, most: float, signed: bool) -> str:
    colour = palette.css(most if value > 0 else -most, 1.6 * most) if signed else "#5a5a5a"
    share = 0.0 if not np.isfinite(value) else 100 * abs(value) / most
    bar = f'<span class="bar" style="width:{share:.1f}%;background:{colour}"></span>'
    left, right = (bar, "") if value < 0 else ("", bar)
    size = f"{value:+.3g}" if signed else f"{value:.3g}"
    halves = (
        f'<td class="half left">{left}</td><td class="half">{right}</td>'
        if signed
        else f'<td class="half" colspan="2">{bar}</td>'
    )
    return f'<tr><td class="name">{escape(name)}</td>{halves}<td class="size">{size}</td></tr>'


def _tokens(scene: Tokens) -> str:
    most = palette.scale(np.array(scene.values))
    spans = [
        f'<span title="{value:+.4g}" style="background:{palette.css(value, most)};color:{palette.ink(value, most)}">'
        f"{escape(_visible(token))}<small>{value:+.2g}</small></span>"
        for token, value in zip(scene.tokens, scene.values, strict=True)
    ]
    return f'<p class="tokens">{"".join(spans)}</p>{_legend(most)}'


def _visible(token: str) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in token) or " "


def _legend(most: float) -> str:
    stops = ", ".join(palette.css(value, most) for value in np.linspace(-most, most, 9).tolist())
    bar = f'<span class="scale" style="background:linear-gradient(to right, {stops})"></span>'
    return f'<p class="legend">against -{most:.2g} {bar} +{most:.2g} for</p>'
