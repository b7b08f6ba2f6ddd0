"""What the suite is told of a backend: how to load a model of it, and what is right for that model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

__all__ = ["Arrays", "Subject"]

Arrays: TypeAlias = Mapping[str, Any]
"""numpy arrays by the name of the input or output."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A model of the backend under test. Only `address` is needed; what else is given lets more checks run.

    Attributes:
        address: what `load` takes. The model should be small: it is asked some hundred times.
        options: of `load`, for each model that is loaded ("api_key", "device", ...).
        reference: the right outputs for these inputs, by plain numpy. A check gives it what it gives the model; BF16
            as float32, BYTES as an object array of `bytes`. It serves the models of `datatypes` too.
        inputs: inputs of so many rows, the same for the same seed, where the model can't take any numbers (token ids,
            say). None draws small numbers by the signature.
        datatypes: for a datatype of the Open Inference Protocol ("FP16") the address of a model whose inputs are all
            of it. The datatypes of the model itself needn't be there.
        failing: inputs at which the model itself fails.
        slow: the address of a model whose `predict` takes half a second or more for the inputs of the suite.
        absent: an address where this backend finds no model.
        unreachable: an address of a peer that isn't there.
        prompt: what a language model is asked.
        texts: what an embedding model is asked: three or more, all different.
        rtol, atol: relative and absolute tolerance of floats, as numpy's `allclose` has them.
        exempt: checks that this backend can't meet, each with the reason. They are reported as not asked.
    """

    address: str | Sequence[str]
    options: Mapping[str, Any] = field(default_factory=dict)
    reference: Callable[[Arrays], Arrays] | None = None
    inputs: Callable[[int, int], Arrays] | None = None
    datatypes: Mapping[str, str] = field(default_factory=dict)
    failing: Arrays | None = None
    slow: str | None = None
    absent: str | None = None
    unreachable: str | None = None
    prompt: str = "one two three four"
    texts: Sequence[str] = ("a cat sat", "dogs bark!", "rain")
    rtol: float = 1e-5
    atol: float = 1e-6
    exempt: Mapping[str, str] = field(default_factory=dict)
