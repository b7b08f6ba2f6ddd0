"""`embed`: one vector for each text, whatever stands beside it."""

from __future__ import annotations

import pickle

import numpy as np

from aiaas_sdk.errors import UnsupportedOperationError
from aiaas_sdk.testing.conformance.bench import Bench
from aiaas_sdk.testing.conformance.checks import agree, check, lacks


@check("embed")
def vectors_are_a_matrix(bench: Bench) -> None:
    """The vectors are float32 of the shape (texts, dimensions)."""
    texts = list(bench.subject.texts)
    array = bench.model.embed(texts).array
    agree(array.ndim == 2 and len(array) == len(texts), f"{len(texts)} texts have the shape {list(array.shape)}")
    agree(array.shape[1] > 0, "the vectors have no dimensions")


@check("embed")
def vectors_are_finite(bench: Bench) -> None:
    """No vector holds NaN or an infinity."""
    array = bench.model.embed(list(bench.subject.texts)).array
    agree(bool(np.isfinite(array).all()), f"{int((~np.isfinite(array)).sum())} numbers aren't finite")


@check("embed")
def one_text_has_one_vector(bench: Bench) -> None:
    """A single text gives one vector: that which it has among others."""
    texts = list(bench.subject.texts)
    alone, all_of_them = bench.model.embed(texts[0]).array, bench.model.embed(texts).array
    bench.same_array(alone, all_of_them[:1], "the vector of one text")


@check("embed")
def vectors_keep_the_order_of_texts(bench: Bench) -> None:
    """Texts in another order give the same vectors in that order."""
    texts = list(bench.subject.texts)
    bench.same_array(
        bench.model.embed(texts[::-1]).array, bench.model.embed(texts).array[::-1], "in another order, the matrix"
    )


@check("embed")
def the_same_text_has_the_same_vector(bench: Bench) -> None:
    """A text that stands twice has one vector twice."""
    text = list(bench.subject.texts)[1]
    array = bench.model.embed([text, text]).array
    bench.same_array(array[1], array[0], "the second vector of a text")


@check("embed")
def different_texts_have_different_vectors(bench: Bench) -> None:
    """Texts that differ have vectors that differ."""
    array = bench.model.embed(list(bench.subject.texts)).array
    lacks(not array.shape[1], "the vectors have no dimensions")
    agree(len(np.unique(array, axis=0)) == len(array), "two of the subject's texts have the same vector")


@check("embed")
def dimensions_are_kept_or_refused(bench: Bench) -> None:
    """`dimensions=` gives vectors of that length, or is refused as unsupported."""
    texts = list(bench.subject.texts)
    whole = bench.model.embed(texts).array.shape[1]
    lacks(whole < 2, "the model's vectors have one dimension")
    try:
        came = bench.model.embed(texts, dimensions=whole // 2).array.shape[1]
    except UnsupportedOperationError:
        return
    agree(came == whole // 2, f"dimensions={whole // 2} gives vectors of {came}")


@check("embed")
def embeddings_count_their_tokens(bench: Bench) -> None:
    """Tokens are counted, or None; never below 0."""
    count = bench.model.embed(list(bench.subject.texts)).usage.input_tokens
    agree(count is None or (type(count) is int and count >= 0), f".usage.input_tokens is {count!r}")


@check("embed")
def embeddings_can_be_pickled(bench: Bench) -> None:
    """Vectors can be sent to another process."""
    came = bench.model.embed(list(bench.subject.texts))
    try:
        again = pickle.loads(pickle.dumps(came))
    except Exception as error:
        agree(False, f"the answer can't be pickled: {error}")
    else:
        same = np.array_equal(again.array, came.array, equal_nan=True)
        agree(bool(same), "the answer comes out of pickle as another one")
