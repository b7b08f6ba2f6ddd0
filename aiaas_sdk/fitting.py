"""`fit` as a flow: settings and rows are checked, and a run begins."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from aiaas_sdk.errors import ConfigError
from aiaas_sdk.flow import Flow, run
from aiaas_sdk.language import Language
from aiaas_sdk.records.call import Deadline
from aiaas_sdk.records.model import ModelInfo
from aiaas_sdk.records.training import Fit
from aiaas_sdk.rows import Data, Feed, Rows, check_counted, check_finite, rows
from aiaas_sdk.runs import Source

__all__ = ["Fitting"]


class Fitting(Language):
    """What both faces share of `fit`."""

    def _begun(
        self,
        x: Any,
        y: Any,
        validation: Any,
        settings: Mapping[str, Any],
        progress: bool | None,
        deadline: Deadline | None,
    ) -> Flow[Source]:
        """Begin a run. What is wrong with settings, arrays and files is told here; batches are checked as they come."""
        info = self._engine.info
        assert info is not None  # the face has opened it
        if "fit" not in info.verbs:
            raise self._unsupported("fit")
        share, apart = _validation(validation)
        fit = Fit.of({**settings, "validation": share})
        data: Data = yield from run(partial(_data, x, y, apart, info, fit))
        source: Source = yield from self._asking(self._call("fit", deadline), fit, data)
        if progress:
            from aiaas_sdk.runprogress import RunProgress

            source.log.listen(RunProgress().tell)
        return source

    def _newer(self, address: str) -> Any:
        """What a run made, loaded with this model's options."""
        return self._reload(self._options, address)


def _validation(validation: Any) -> tuple[float | None, Any]:
    """The share of the rows, or rows of its own."""
    if validation is None or isinstance(validation, bool | int | float):
        return validation, None
    return None, validation


def _data(x: Any, y: Any, validation: Any, info: ModelInfo, fit: Fit) -> Data:
    data = _sources(x, y, validation, info)
    if isinstance(data.training, Rows):
        check_counted(data.training, info, fit.class_weights)
    for source in (data.training, data.validation):
        if isinstance(source, Rows):
            # a loss of one's own may take a NaN for a target that nobody knows
            check_finite(source, info, targets=not callable(fit.loss))
    return data


def _sources(x: Any, y: Any, validation: Any, info: ModelInfo) -> Data:
    training = _source(x, y, info)
    if validation is None:
        return Data(training)
    if isinstance(validation, tuple):
        if len(validation) != 2:
            raise ConfigError(f"validation has {len(validation)} parts", hint="Give a share, or a pair (x, y)")
        return Data(training, _source(*validation, info))
    return Data(training, _source(validation, None, info))


def _source(x: Any, y: Any, info: ModelInfo) -> Rows | Feed:
    from aiaas_sdk import rowfiles

    if rowfiles.named(x):
        return rows(*rowfiles.read(x, y, info), info)
    if y is None and _gives_pairs(x):
        return Feed(x)
    return rows(x, y, info)


def _gives_pairs(x: Any) -> bool:
    """Whether it is something else than arrays: a Dataset, a loader, an iterable, or a function that makes one."""
    if isinstance(x, Mapping | str) or hasattr(x, "__array__") or hasattr(x, "__dlpack__"):
        return False
    if isinstance(x, list | tuple):
        return bool(x) and isinstance(x[0], tuple) and len(x[0]) == 2
    return callable(x) or hasattr(x, "__iter__") or hasattr(x, "__getitem__")
