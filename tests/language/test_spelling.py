"""Texts that come in pieces: whole characters, and ends that are cut exactly."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as some

from aiaas_sdk.backends.torch.spelling import Speller, Stops

TEXTS = some.text(some.sampled_from("abé世🙂"), max_size=30)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(places)]


@given(TEXTS, some.lists(some.integers(0, 200), max_size=40))
def test_characters_are_whole_wherever_their_bytes_are_cut(text: str, cuts: list[int]) -> None:
    speller = Speller()
    shown = [speller.add(piece) for piece in pieces(text.encode(), cuts)]
    assert "".join(shown) == text
    assert not any("\ufffd" in piece for piece in shown)


@given(TEXTS, some.integers(0, 120))
def test_a_character_that_never_comes_whole_is_dropped(text: str, cut: int) -> None:
    data = text.encode()[:cut]
    assert Speller().add(data) == data.decode(errors="ignore")


def test_bytes_that_can_be_no_character_are_told() -> None:
    speller = Speller()
    assert [speller.add(piece) for piece in (b"a\xff", b"b\xe4", b"c")] == ["a\ufffd", "b", "\ufffdc"]


@given(
    some.text("ab<>", max_size=40),
    some.lists(some.text("ab<>", min_size=1, max_size=5), max_size=3),
    some.lists(some.integers(0, 60), max_size=40),
)
def test_a_text_ends_where_the_first_stop_begins(text: str, stops: list[str], cuts: list[int]) -> None:
    watch = Stops(stops)
    shown = []
    for piece in pieces(text.encode(), cuts):
        shown.append(watch.add(piece.decode()))
        if watch.hit:
            break
    said = "".join(shown) + ("" if watch.hit else watch.rest())
    if not watch.hit:
        assert said == text
        assert not any(stop in text for stop in stops)
        return
    # the earliest stop of what had come when one was whole
    assert text.startswith(said)
    assert any(text.startswith(stop, len(said)) for stop in stops)
    assert not any(stop in said for stop in stops)


def test_nothing_of_a_stop_is_shown_before_it_is_one() -> None:
    watch = Stops(["</end>"])
    assert [watch.add(piece) for piece in ("text <", "/e", "n", "d!", "</", "end>", "more")] == [
        "text ", "", "", "</end!", "", "", "",
    ]  # fmt: skip
    assert watch.hit
