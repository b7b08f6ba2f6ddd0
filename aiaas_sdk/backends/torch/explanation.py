"""Explanations by gradients, with captum, and by attention; of a model in this process.

Sources: Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks" (integrated gradients); Simonyan et al.
2013, "Deep Inside Convolutional Networks" (saliency: absolute gradients); Smilkov et al. 2017, "SmoothGrad" (the mean
gradient at noisy inputs); Selvaraju et al. 2017, "Grad-CAM". They run on a twin of the module, which shares its weights
and nothing else: what watches its layers disturbs no other call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import nn

from aiaas_sdk.backends.torch.explanation_attention import rollout
from aiaas_sdk.backends.torch.explanation_embedding import Vectors
from aiaas_sdk.backends.torch.explanation_layers import (
    attentions,
    before_logits,
    embedding_of,
    has_convolution,
    last_map,
    twin,
)
from aiaas_sdk.backends.torch.explanation_occlusion import occluded
from aiaas_sdk.backends.torch.explanation_path import Way, integrated
from aiaas_sdk.backends.torch.explanation_scores import Scorer, Texts
from aiaas_sdk.errors import InputError
from aiaas_sdk.explaining.targets import names_output, unknown
from aiaas_sdk.records.explanation import Explained, Question, axis_of_rows
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.tensors import Tensor

__all__ = ["Explainer"]

SAMPLES, NOISE, SEED = 32, 0.15, 0
"""SmoothGrad's: inputs with noise, its standard deviation as a share of what a row spans (10 to 20 % in the paper)."""
AT_ONCE = 128
"""Rows of one pass, forward and backward, and fewer of long rows:"""
ELEMENTS, TOKENS = 1 << 25, 1 << 12
"""What the answers to a pass may have of numbers (128 MiB of them), and its rows of tokens."""
PROGRAM = "needs the module; this model was saved as a program (load it with architecture=)"
NOWHERE = "has nothing to show: the last map of this model's convolutions is one place for the whole input"
OTHERWISE = "integrated_gradients, saliency, smoothgrad and occlusion need no map"
GRADIENTS = ("saliency", "smoothgrad")
Found = Mapping[str, torch.Tensor]
"""Attributions by the name of their input."""


@dataclass(frozen=True, slots=True)
class Explainer:
    """Explains one opened model.

    Attributes:
        program: gives the outputs for tensors in the signature's order, where there is no module.
        module: what was loaded; called: it, or a twin of it, as such a function of these inputs.
        ready: an input as the tensor that is computed with.
        texts: the tokenizer, where there is one.
    """

    info: ModelInfo
    program: Callable[..., Sequence[torch.Tensor]]
    module: nn.Module | None
    called: Callable[[nn.Module, Sequence[str]], Callable[..., Sequence[torch.Tensor]]]
    ready: Callable[[Tensor], torch.Tensor]
    texts: Texts | None

    # ------------------------------------------------------------ what it can
    def lacks(self, method: str) -> str | None:
        """What is missing for a method, in words that follow its name; None for nothing."""
        missing = {
            "integrated_gradients": self._lacks_path,
            "saliency": self._lacks_path,
            "smoothgrad": self._lacks_path,
            "grad_cam": self._lacks_convolution,
        }
        if method == "attention_rollout":
            return self._lacks_attention()
        if method == "occlusion":  # of texts; of arrays the model is asked for predictions
            return "needs a tokenizer; this model has none" if self.texts is None or self.module is None else None
        if method not in missing:
            return "isn't done by gradients"
        return 'needs captum: pip install "aiaas-sdk[explain]"' if find_spec("captum") is None else missing[method]()

    def _has_floats(self) -> bool:
        floats = [spec for spec in self.info.inputs if spec.datatype in ("FP16", "BF16", "FP32", "FP64")]
        return any(axis_of_rows(spec) is not None for spec in floats)

    def _lacks_path(self) -> str | None:
        if self._has_floats():
            return None
        if self.module is None:
            return PROGRAM
        return None if embedding_of(self.module) else "needs inputs of floats, or an embedding"

    def _lacks_convolution(self) -> str | None:
        if self.module is None:
            return PROGRAM
        return None if has_convolution(self.module) else "needs a convolution; this model has none"

    def _lacks_attention(self) -> str | None:
        if self.module is None:
            return PROGRAM
        return None if attentions(self.module) else "needs the attention of a Transformer; this model has none"

    # ------------------------------------------------------------ explaining
    def explain(self, question: Question) -> Explained:
        """Attributions by a method that lacks nothing."""
        tokens, inputs = self._inputs(question)
        if not question.rows:
            nothing = {name: torch.zeros(value.shape) for name, value in inputs.items()}
            return Explained(self._given(nothing), question.method, (), None, tokens)
        # cudnn's own LSTM can't be differentiated in eval mode
        with (
            torch.enable_grad(),
            torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled and not _recurs(self.module)),
        ):
            # of texts in float32: in half precision attributions add up to no more than two digits
            module = None if self.module is None else twin(self.module, full=tokens is not None)
            forward = self.program if module is None else self.called(module, list(inputs))
            wanted = question.targets if tokens is None else self._wanted(question.targets)
            last = None if module is None or not self._goes_on else before_logits(module)
            scorer = Scorer(forward, self.info, inputs, question.axes, wanted, self.texts, last)
            found = self._found(question.method, module, scorer)
        targets = None if question.method == "attention_rollout" else scorer.told
        if tokens is not None:
            return Explained(
                {"tokens": _tensor(found[scorer.ids_name], "FP32")},
                question.method,
                targets,
                scorer.error,
                tokens,
                self._written(targets),
            )
        return Explained(self._given(scorer.shaped(found)), question.method, targets, scorer.error)

    def _inputs(self, question: Question) -> tuple[tuple[tuple[str, ...], ...] | None, dict[str, torch.Tensor]]:
        if question.texts is None:
            return None, {spec.name: self.ready(question.inputs[spec.name]) for spec in self.info.inputs}
        if self.texts is None or self.module is None:
            raise InputError(f"{self.info.name} has no tokenizer", hint="Give arrays, as predict takes them")
        return self.texts.inputs(question.texts)

    @property
    def _goes_on(self) -> bool:
        return self.texts is not None and self.texts.task == "generate"

    def _wanted(self, targets: tuple[int | str, ...] | None) -> tuple[int | str, ...] | None:
        """Targets of texts: what is written as a token is its id."""
        if targets is None:
            return None
        written = [one for one in targets if isinstance(one, str) and not names_output(one, self.info)]
        if written and not self._goes_on:
            raise unknown(written[0], self.info)
        assert self.texts is not None
        return tuple(self.texts.token(one) if one in written else one for one in targets)

    def _written(self, targets: tuple[int, ...] | None) -> tuple[str, ...] | None:
        if targets is None or not self._goes_on:
            return None
        assert self.texts is not None
        size = self.texts.tokenizer.size  # a model may have more of them
        return tuple(self.texts.tokenizer.written([one])[0] if one < size else str(one) for one in targets)

    def _found(self, method: str, module: nn.Module | None, scorer: Scorer) -> Found:
        by_vectors = not scorer.floats and module is not None and method in ("integrated_gradients", *GRADIENTS)
        vectors = Vectors(module, scorer, method) if by_vectors and module is not None else None
        if method == "integrated_gradients":
            return _integrated(scorer) if vectors is None else _by_embedding(vectors, scorer)
        if method in GRADIENTS:
            taken = _saliency if method == "saliency" else _smoothgrad
            return scorer.placed(taken(scorer)) if vectors is None else vectors.lengths(taken(vectors))
        if method == "occlusion":
            return occluded(scorer, _rows_at_once(scorer))
        assert module is not None
        if method == "grad_cam":
            return _grad_cam(module, scorer)
        return dict([rollout(module, scorer)])

    def _given(self, found: Found) -> dict[str, Tensor]:
        kinds = {spec.name: spec.datatype for spec in self.info.inputs}
        return {name: _tensor(value, kinds[name]) for name, value in found.items()}


def _recurs(module: nn.Module | None) -> bool:
    return module is not None and any(isinstance(part, nn.RNNBase) for part in module.modules())


# ---------------------------------------------------------------- the methods
def _integrated(scorer: Scorer) -> Found:
    given = scorer.given()
    baseline = scorer.baseline(scorer.floats)
    there = [baseline[name] for name in scorer.floats]
    here = [value.detach() for value in given["inputs"]]
    others = given["additional_forward_args"] or ()
    way = Way(scorer, there, here, others, given["target"], _rows_at_once(scorer))
    return scorer.placed(_complete(way, scorer))


def _by_embedding(vectors: Vectors, scorer: Scorer) -> Found:
    """Integrated gradients of the tokens' vectors, summed for each token."""
    baseline = scorer.baseline([place.name for place in vectors.places])
    there, here = vectors.at(baseline), vectors.at(scorer.inputs)
    given = vectors.given()
    way = Way(vectors, there, here, given["additional_forward_args"], given["target"], _rows_at_once(scorer))
    return vectors.summed(_complete(way, scorer))


def _rows_at_once(scorer: Scorer) -> int:
    """Rows of a pass: what they need of memory grows with their answers, and with their tokens."""
    tokens = 1 if scorer.floats else scorer.inputs[scorer.ids_name][:1].numel()
    return max(1, min(AT_ONCE, ELEMENTS // max(1, scorer.width), TOKENS // max(1, tokens)))


def _complete(way: Way, scorer: Scorer) -> Sequence[torch.Tensor]:
    found, scorer.error = integrated(way)
    _check(found, "integrated_gradients")
    return found


def _check(found: Sequence[torch.Tensor], method: str) -> None:
    """InputError where a gradient isn't a number: a root or a norm has none at 0."""
    if not all(bool(torch.isfinite(one).all()) for one in found):
        raise InputError(
            f"{method} found a gradient that is infinite or NaN at these inputs",
            hint="occlusion needs no gradients; neither does shap, which is for tables",
        )


def _saliency(asked: Scorer | Vectors) -> Sequence[torch.Tensor]:
    from captum.attr import Saliency

    found: Sequence[torch.Tensor] = Saliency(asked).attribute(**asked.given(), abs=True)
    _check(found, "saliency")
    return found


def _smoothgrad(asked: Scorer | Vectors) -> Sequence[torch.Tensor]:
    """Not captum's NoiseTunnel, which draws from the process's own random numbers."""
    from captum.attr import Saliency

    random = torch.Generator().manual_seed(SEED)
    method, given = Saliency(asked), asked.given()
    values = [value.detach() for value in given.pop("inputs")]
    sums = [torch.zeros_like(value) for value in values]
    for _ in range(SAMPLES):
        noisy = tuple((value + _noise(value, random)).requires_grad_() for value in values)
        for total, gradient in zip(sums, method.attribute(noisy, **given, abs=False), strict=True):
            total += gradient
    _check(sums, "smoothgrad")
    return [total / SAMPLES for total in sums]


def _noise(value: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    flat = value.reshape(len(value), -1).float()
    spans = (flat.amax(1) - flat.amin(1)) if flat.shape[1] else flat.new_zeros(len(flat))
    drawn = torch.randn(value.shape, generator=random).to(value.device)
    return (NOISE * spans.reshape(-1, *(1,) * (value.ndim - 1)) * drawn).to(value.dtype)


def _grad_cam(module: nn.Module, scorer: Scorer) -> Found:
    """The last map of a convolution, scaled up; each channel of a picture has the same."""
    from captum.attr import LayerAttribution, LayerGradCam

    layer = last_map(module, scorer.run)
    if layer is None:
        raise InputError("grad_cam found no convolution at work for this answer", hint=OTHERWISE)
    maps = LayerGradCam(scorer, layer).attribute(**scorer.given(), relu_attributions=True)
    name, sizes = _mapped(maps, scorer)
    value = scorer.inputs[name]
    wide = value.shape[-len(sizes) :]
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(sizes)]
    scaled = LayerAttribution.interpolate(maps.reshape(len(maps), 1, *sizes), tuple(wide), interpolate_mode=mode)
    return {name: scaled.reshape(len(value), *(1,) * (value.ndim - 1 - len(sizes)), *wide).expand(value.shape)}


def _mapped(maps: torch.Tensor, scorer: Scorer) -> tuple[str, Sequence[int]]:
    """The input that a map (rows, 1, ...) is over, and the map's sizes along that input's last axes.

    It is one of (rows, channels, ...), as the convolution has; or (rows, ...), which the model itself gave channels,
    and axes of one place where the convolution wants more.
    """
    sizes = list(maps.shape[2:])
    wide = [size for size in sizes if size > 1]
    for name in scorer.floats:
        if wide and scorer.inputs[name].ndim == len(sizes) + 2:
            return name, sizes
    for name in scorer.floats:
        if wide and scorer.inputs[name].ndim == len(wide) + 1:
            return name, wide
    why = "needs an input of (rows, channels, ...) or (rows, ...), as its convolution has" if wide else NOWHERE
    raise InputError(f"grad_cam {why}", hint=OTHERWISE)


def _tensor(value: torch.Tensor, datatype: str) -> Tensor:
    plain: Any = value.detach().cpu()
    if datatype == "FP64":
        return Tensor("FP64", np.ascontiguousarray(plain.double().numpy()))
    return Tensor("FP32", np.ascontiguousarray(plain.float().numpy()))
