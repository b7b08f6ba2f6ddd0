"""Recurrent networks: a state that each step of a series changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from aiaas_sdk.architectures import architecture
from aiaas_sdk.architectures.checks import FLOATS, LAYERS, TOKENS, Inputs, choice, share, sizes, truth, unfit
from aiaas_sdk.architectures.masks import check_tokens, steps_of
from aiaas_sdk.errors import ConfigError, InputError

__all__ = ["RNN"]

KINDS: Mapping[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
HEADS = ("last", "every", "sequence")
FITTING = (
    'series: {"NAME": ("FP32", [-1, -1, FEATURES])}',
    'tokens, with config={"vocabulary": TOKENS}: {"NAME": ("INT64", [-1, -1])}',
    'rows of different lengths have a second input, and the first is then called "inputs": "mask": '
    '("INT64", [-1, -1]), 1 where a row has a step',
    'one sequence from another: {"inputs": as above, "decoder_inputs": ("INT64", [-1, -1])}',
    'for a row of numbers there is the architecture "mlp"',
)
State: TypeAlias = Tensor | tuple[Tensor, Tensor]


@architecture("rnn")
class RNN(nn.Module):
    """A recurrent network: plain, LSTM or GRU, with one of three heads.

    With x_t a step, h_t the state after it, s the sigmoid and * element by element:

    ====  ============================================================================================================
    kind  formula and source
    ====  ============================================================================================================
    rnn   h_t = f(W x_t + b + U h_{t-1} + c). Elman 1990, "Finding Structure in Time"
    lstm  i, f, o = s(W x_t + b + U h_{t-1} + c), each with weights of its own; g = tanh(the same, of its own);
          c_t = f * c_{t-1} + i * g; h_t = o * tanh(c_t). Hochreiter and Schmidhuber 1997, "Long Short-Term Memory";
          f by Gers et al. 2000, "Learning to Forget"
    gru   r, z = s(W x_t + b + U h_{t-1} + c), each with weights of its own; n = tanh(W x_t + b + r * (U h_{t-1} + c));
          h_t = (1 - z) * n + z * h_{t-1}. Cho et al. 2014, "Learning Phrase Representations"
    ====  ============================================================================================================

    ========  ==============================================================  ======================================
    head      inputs                                                          logits
    ========  ==============================================================  ======================================
    last      inputs, and mask where rows have different lengths              (rows, classes): of the last state
    every     the same                                                        (rows, steps, classes): of each state
    sequence  the same, and decoder_inputs, int64 (rows, decoder steps):      (rows, decoder steps, classes): what
              what is there of the other sequence, from its begin token on    comes next in it
    ========  ==============================================================  ======================================

    `inputs` is float (rows, steps, features), or int64 (rows, steps), token ids. `mask` is (rows, steps): 1 where a
    row has a step, then 0 to the end; a row answers with others as it does alone, and what "every" says where the mask
    is 0 has no meaning. A "sequence" begins from the last state of the layers that read `inputs` (Sutskever et al.
    2014, "Sequence to Sequence Learning").

    Args:
        kind: "rnn", "lstm" or "gru".
        features: numbers of a step, or
        vocabulary: how many tokens there are; one of the two.
        classes: how many outputs; of a sequence, how many tokens the other one has.
        hidden: the width of a state.
        layers: how many, one upon the other.
        embedding: how wide a token becomes.
        bidirectional: a second network reads from the end; "last" and "every" see the states of both.
        dropout: the share left out in training, of what goes from one layer to the next and into the head.
        activation: f of the kind "rnn": "tanh" or "relu".
        head: "last", "every" or "sequence".

    Raises:
        ConfigError: a value can't be, or two don't go together.
    """

    def __init__(
        self,
        kind: str = "lstm",
        features: int | None = None,
        vocabulary: int | None = None,
        classes: int = 1,
        hidden: int = 64,
        layers: int = 1,
        embedding: int = 64,
        bidirectional: bool = False,
        dropout: float = 0.0,
        activation: str = "tanh",
        head: str = "last",
    ) -> None:
        super().__init__()
        choice("kind", kind, KINDS)
        choice("head", head, HEADS)
        choice("activation", activation, ("tanh", "relu") if kind == "rnn" else ("tanh",))
        sizes(classes=classes, hidden=hidden, layers=layers, embedding=embedding)
        share("dropout", dropout)
        truth("bidirectional", bidirectional)
        if layers > LAYERS:
            raise ConfigError(f"layers is {layers}; there are at most {LAYERS}")
        if head == "sequence" and bidirectional:
            raise ConfigError("bidirectional is true, and the head 'sequence' goes on from one state, not from two")
        self.config = {
            "kind": kind, "features": features, "vocabulary": vocabulary, "classes": classes, "hidden": hidden,
            "layers": layers, "embedding": embedding, "bidirectional": bidirectional, "dropout": dropout,
            "activation": activation, "head": head,
        }  # fmt: skip
        self._head, self._vocabulary, self._features, self._classes = head, vocabulary, features, classes
        wide = _wide(features, vocabulary, embedding)
        self.embedding = None if vocabulary is None else nn.Embedding(vocabulary, embedding)
        self.cells = _cells(kind, wide, hidden, layers, bidirectional, dropout, activation)
        if head == "sequence":
            self.decoder_embedding = nn.Embedding(classes, embedding)
            self.decoder = _cells(kind, embedding, hidden, layers, False, dropout, activation)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden * (2 if bidirectional else 1), classes)

    @classmethod
    def configure(cls, inputs: Inputs, labels: Sequence[str] | None) -> Mapping[str, Any]:
        """The arguments that a signature decides."""
        found = _configured(dict(inputs))
        return found if labels is None else {**found, "classes": len(labels)}

    @property
    def example(self) -> Tensor | dict[str, Tensor]:
        """One row."""
        steps = 4 if self._features != 4 else 5
        ids = torch.zeros(1, steps, dtype=torch.int64)
        inputs = ids if self._features is None else torch.zeros(1, steps, self._features)
        return {"inputs": inputs, "decoder_inputs": ids} if self._head == "sequence" else inputs

    def forward(self, inputs: Tensor, mask: Tensor | None = None, decoder_inputs: Tensor | None = None) -> Tensor:
        """See the class."""
        x = self._read(inputs)
        lengths = None if mask is None else steps_of(mask, *x.shape[:2]).sum(1)
        if self._head == "every":
            return self._logits(_states(self.cells, x, lengths))
        state = _last(self.cells, x, lengths)
        if self._head == "last":
            hidden = state[0] if isinstance(state, tuple) else state
            both = self.cells.bidirectional
            return self._logits(torch.cat((hidden[-2], hidden[-1]), dim=1) if both else hidden[-1])
        if decoder_inputs is None:
            raise InputError("the head 'sequence' takes decoder_inputs, too")
        check_tokens(decoder_inputs, self._classes, "decoder_inputs")
        states: Tensor = self.decoder(self.decoder_embedding(decoder_inputs), state)[0]
        return self._logits(states)

    def _read(self, inputs: Tensor) -> Tensor:
        """Steps as vectors, (rows, steps, width)."""
        if self.embedding is not None:
            assert self._vocabulary is not None
            check_tokens(inputs, self._vocabulary, "inputs")
            vectors: Tensor = self.embedding(inputs)
            return vectors
        if inputs.ndim != 3 or inputs.shape[1] < 1 or inputs.shape[2] != self._features:
            raise InputError(
                f"inputs: a series of shape {list(inputs.shape)}; it takes (rows, steps, {self._features}), of 1 step "
                "or more"
            )
        return inputs

    def _logits(self, states: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(states))
        return logits


def _wide(features: int | None, vocabulary: int | None, embedding: int) -> int:
    """The width of a step."""
    if (features is None) == (vocabulary is None):
        raise ConfigError(
            f"features is {features!r:.80} and vocabulary {vocabulary!r:.80}; one of the two is given",
            hint='For token ids give config={"vocabulary": how many tokens there are}',
        )
    if vocabulary is not None:
        sizes(vocabulary=vocabulary)
        return embedding
    assert features is not None
    sizes(features=features)
    return features


def _cells(
    kind: str, wide: int, hidden: int, layers: int, bidirectional: bool, dropout: float, activation: str
) -> nn.RNNBase:
    between = dropout if layers > 1 else 0.0  # of one layer torch warns that it has no use for it
    own: dict[str, Any] = {"nonlinearity": activation} if kind == "rnn" else {}
    return KINDS[kind](
        wide, hidden, num_layers=layers, batch_first=True, bidirectional=bidirectional, dropout=between, **own
    )


def _states(cells: nn.RNNBase, x: Tensor, lengths: Tensor | None) -> Tensor:
    """After each step, (rows, steps, width)."""
    if lengths is None:
        found: Tensor = cells(x)[0]
        return found
    packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(cells(packed)[0], batch_first=True, total_length=x.shape[1])[0]


def _last(cells: nn.RNNBase, x: Tensor, lengths: Tensor | None) -> State:
    """After the last step of each row: (layers, rows, width), of an LSTM two of them."""
    if lengths is not None:
        # packed, each row ends with its own last step
        x = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)  # type: ignore[assignment]
    state: State = cells(x)[1]
    return state


def _configured(inputs: dict[str, tuple[str, Sequence[int]]]) -> dict[str, Any]:
    given = dict(inputs)
    found: dict[str, Any] = {}
    for name, add in (("mask", {}), ("decoder_inputs", {"head": "sequence"})):
        if "inputs" in given and name in given:
            datatype, shape = given.pop(name)
            if len(shape) != 2 or (name == "decoder_inputs" and datatype not in TOKENS):
                unfit("rnn", inputs, *FITTING)
            found |= add
    match list(given.values()):
        case [(datatype, (_, _, features))] if datatype in FLOATS and features > 0:
            return {**found, "features": features}
        case [(datatype, (_, _))] if datatype in TOKENS:
            return found
    unfit("rnn", inputs, *FITTING)
