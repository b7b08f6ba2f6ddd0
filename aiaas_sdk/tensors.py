"""Tensors as they travel: the datatypes of the Open Inference Protocol, and the ways in and out.

A `Tensor` holds a datatype name ("FP32") and an array in *storage form*: little-endian numpy, where BF16 is
uint16 (its bits) and BYTES an object array of `bytes`; or a torch tensor of the matching dtype. torch is
never imported here: where a torch tensor comes in, torch is loaded already.

    take          what a user hands in -> Tensor, checked against a signature
    Kind          which sort of arrays went in, so that the same sort comes out
    storage       Tensor -> numpy, in storage form
    datatype_of   the datatype that a user's array has by itself
    to_bytes, from_bytes   the form of the binary tensor data extension; views, where alignment allows
    to_json, from_json     flat Python values, as in the protocol's `data`
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from aiaas_sdk.articles import kind_of, with_article
from aiaas_sdk.errors import InputError, ProtocolError
from aiaas_sdk.flow import Buffer
from aiaas_sdk.records.model import TensorSpec

__all__ = [
    "DATATYPES",
    "MAX_RANK",
    "Datatype",
    "Kind",
    "Tensor",
    "datatype_of",
    "from_bytes",
    "from_json",
    "holds",
    "matches",
    "storage",
    "take",
    "to_bytes",
    "to_json",
    "viewed",
]

MAX_RANK = 32
_MAX_BYTES = 2**63 - 1  # numpy refuses a larger array even where another axis is 0

Storage = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Datatype:
    """A datatype of the protocol: name, bytes of an element (None: it varies), numpy's storage dtype."""

    name: str
    size: int | None
    dtype: np.dtype[Any]
    plain: bool = True
    """Its storage form is what numpy users mean by it: all but BF16 and BYTES."""


def _table() -> Mapping[str, Datatype]:
    codes = {
        "BOOL": "?",
        "UINT8": "<u1",
        "UINT16": "<u2",
        "UINT32": "<u4",
        "UINT64": "<u8",
        "INT8": "<i1",
        "INT16": "<i2",
        "INT32": "<i4",
        "INT64": "<i8",
        "FP16": "<f2",
        "FP32": "<f4",
        "FP64": "<f8",
    }
    table = {name: Datatype(name, np.dtype(code).itemsize, np.dtype(code)) for name, code in codes.items()}
    table["BF16"] = Datatype("BF16", 2, np.dtype("<u2"), plain=False)
    table["BYTES"] = Datatype("BYTES", None, np.dtype(object), plain=False)
    return MappingProxyType(table)


DATATYPES: Mapping[str, Datatype] = _table()
"""The datatypes by name (Open Inference Protocol, "Tensor Data Types", and Triton's BF16)."""

_TORCH_NAMES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "BF16": "bfloat16",
    "FP32": "float32",
    "FP64": "float64",
}


_BY_NAME = {name: datatype for datatype, name in _TORCH_NAMES.items()} | {"object": "BYTES"}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Tensor:
    """A datatype and an array in storage form (numpy, or torch on any device). Its repr shows no contents."""

    datatype: str
    array: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def nbytes(self) -> int:
        """Bytes on the wire in binary form; for BYTES with the 4-byte length before each element."""
        count = math.prod(self.shape)
        size = DATATYPES[self.datatype].size
        if size is not None:
            return count * size
        return sum(4 + len(_element(value)) for value in self.array.flat)

    def __repr__(self) -> str:
        return f"<Tensor {self.datatype} {list(self.shape)}>"


def matches(spec: TensorSpec, shape: Sequence[int]) -> bool:
    """Whether a shape fits a signature's, where -1 fits any size."""
    wanted = spec.shape
    if wanted[1:] == shape[1:] and len(wanted) == len(shape):  # most often only the rows are free
        return not wanted or wanted[0] in (-1, shape[0])
    return len(wanted) == len(shape) and all(want in (-1, came) for want, came in zip(wanted, shape, strict=True))


def holds(tensor: Tensor) -> bool:
    """Whether the array is one, and of the datatype that the tensor says it is."""
    kind, array = DATATYPES.get(tensor.datatype), tensor.array
    if kind is None:
        return False
    if type(array) is np.ndarray:
        return array.dtype is kind.dtype or array.dtype.newbyteorder("=") == kind.dtype
    return _is_torch(array) and array.dtype == getattr(
        sys.modules["torch"], _TORCH_NAMES.get(tensor.datatype, ""), None
    )


# ---------------------------------------------------------------- in: what a user hands over
def take(value: Any, spec: TensorSpec, *, where: str) -> Tensor:
    """What a user hands in, as a Tensor of the signature's datatype. A copy is made only where one must be.

    Taken are numpy arrays and torch tensors of exactly the signature's dtype (torch tensors stay torch,
    detached), Python numbers and nested lists of them, `str` and `bytes` for BYTES, whatever has `__array__`
    or `__dlpack__`, and a Tensor. For BF16 a numpy caller gives float32 (rounded to nearest, ties to even)
    or `ml_dtypes.bfloat16`. Python floats are rounded to the datatype's precision; any other loss is refused.

    Args:
        value: the array.
        spec: name, datatype and shape that the model declares.
        where: the model, for messages ("digits@3").

    Raises:
        InputError: the dtype or shape is another one, or values don't fit; it names input, wanted and given.
    """
    kind = DATATYPES.get(spec.datatype)
    if (  # what there is most of: an array that is right as it is
        type(value) is np.ndarray
        and kind is not None
        and kind.plain
        and value.dtype is kind.dtype
        and value.flags.c_contiguous
        and matches(spec, value.shape)
    ):
        return Tensor(spec.datatype, value)
    if kind is None:
        raise InputError(f"input {spec.name!r} of {where} has the unknown datatype {spec.datatype!r}")
    if isinstance(value, Tensor):
        tensor = value
        if tensor.datatype != spec.datatype:
            _refuse(spec, where, f"{with_article(tensor.datatype)} tensor")
    elif _is_torch(value):
        tensor = Tensor(spec.datatype, _take_torch(value, spec, where))
    else:
        tensor = Tensor(spec.datatype, _take_other(value, spec, where))
    if not matches(spec, tensor.shape):
        _refuse(spec, where, f"shape {list(tensor.shape)}", _shape_hint(spec, tensor.shape))
    return tensor


def datatype_of(value: Any) -> str:
    """The datatype that an array (numpy, torch, anything with `__array__`, a list) has by itself.

    Python integers are INT64 and floats FP64, as numpy reads them.

    Raises:
        InputError: no datatype of the protocol is like it (complex numbers, dates).
    """
    if isinstance(value, Tensor):
        return value.datatype
    dtype = value.dtype if hasattr(value, "dtype") else _as_read(value)
    name = str(dtype).removeprefix("torch.")
    if isinstance(dtype, np.dtype):
        name = "object" if dtype.kind in "OUT" else dtype.newbyteorder("=").name
    datatype = _BY_NAME.get(name)
    if datatype is None:
        raise InputError(f"no datatype of the protocol is like {name}", hint=f"Use one of {', '.join(_BY_NAME)}")
    return datatype


def _as_read(value: Any) -> np.dtype[Any]:
    try:
        flat, _ = _flatten(value)
        if {type(entry) for entry in flat} <= {str, bytes} and flat:
            return np.dtype(object)
        return np.asarray(value).dtype
    except Exception as error:  # whatever `__array__` of a stranger raises
        what = f"{kind_of(value)} can't be read as an array"
        raise InputError(f"{what} ({type(error).__name__})") from None


def _take_torch(value: Any, spec: TensorSpec, where: str) -> Any:
    torch = sys.modules["torch"]
    want = _TORCH_NAMES.get(spec.datatype)
    if want is None:
        _refuse(
            spec, where, f"{with_article(str(value.dtype))} tensor", "torch has no strings; give a list of str or bytes"
        )
    if value.dtype != getattr(torch, want, None):
        _refuse(spec, where, f"{with_article(str(value.dtype))} tensor", f"Convert it: x.to(torch.{want})")
    if value.layout != torch.strided or value.device.type == "meta":
        came = f"{with_article(str(value.layout))} tensor on {value.device}"
        _refuse(spec, where, came, "Give a dense tensor: x.to_dense()")
    return value.detach()


def _take_other(value: Any, spec: TensorSpec, where: str) -> Storage:
    if type(value) is np.ndarray:
        return _take_numpy(value, spec, where)
    # .item() of numpy's own bytes would cut trailing zero bytes; they are `bytes` already
    plain = isinstance(value, bytes | str) or not isinstance(value, np.generic)
    if not plain and value.dtype != DATATYPES[spec.datatype].dtype:
        value = value.item()
    if isinstance(value, list | tuple | bool | int | float | str | bytes):
        return _take_python(value, spec, where)
    return _take_numpy(_as_array(value, spec, where), spec, where)


def _as_array(value: Any, spec: TensorSpec, where: str) -> Storage:
    if isinstance(value, np.ma.MaskedArray):
        _refuse(spec, where, "a masked array", "Choose a value for what is masked: x.filled(0)")
    try:
        if hasattr(value, "__array__"):
            return np.asarray(value)
        if hasattr(value, "__dlpack__"):
            return np.from_dlpack(value)
    except Exception as error:  # the other library's own; it may raise anything
        reason = f"{kind_of(value)} that can't become an array ({type(error).__name__})"
        _refuse(spec, where, reason, "Give a numpy array or a torch tensor on the CPU")
    hint = "Give a numpy array, a torch tensor or a list"
    if hasattr(value, "__array_interface__"):  # a picture of pillow's
        hint = "Make an array of it, np.asarray(x), of the shape and datatype that the model wants"
    _refuse(spec, where, kind_of(value), hint)


def _take_numpy(array: Storage, spec: TensorSpec, where: str) -> Storage:
    if spec.datatype == "BYTES":
        return _strings(array, spec, where)
    want = DATATYPES[spec.datatype].dtype
    if spec.datatype == "BF16":
        if array.dtype.name == "bfloat16":
            return np.asarray(array, order="C").view(want)
        if array.dtype.newbyteorder("=") == np.float32:
            return _to_bf16(np.asarray(array, dtype=np.float32, order="C"))
        _refuse(spec, where, _array_of(array.dtype), "Convert it: x.astype(np.float32)")
    if array.dtype.newbyteorder("=") != want:
        _refuse(spec, where, _array_of(array.dtype), f"Convert it: x.astype(np.{want.name})")
    return np.asarray(array, dtype=want, order="C")  # not ascontiguousarray, which gives a scalar an axis


def _array_of(dtype: np.dtype[Any]) -> str:
    return f"{with_article(str(dtype))} array"


def _strings(array: Storage, spec: TensorSpec, where: str) -> Storage:
    if array.dtype.kind == "S":
        hint = "numpy cut trailing zero bytes when it was made; build it with dtype=object, or give a list"
        _refuse(spec, where, _array_of(array.dtype), hint)
    if array.dtype.kind not in "OUT":
        _refuse(spec, where, _array_of(array.dtype), "Give a list, or an object array, of str or bytes")
    return _encoded(array.ravel().tolist(), array.shape, spec, where)


def _encoded(flat: list[Any], shape: tuple[int, ...], spec: TensorSpec, where: str) -> Storage:
    try:
        return _objects([_element(value) for value in flat], shape)
    except (TypeError, UnicodeEncodeError) as error:
        _refuse(spec, where, str(error) if isinstance(error, TypeError) else "text that isn't Unicode")


def _take_python(value: Any, spec: TensorSpec, where: str) -> Storage:
    try:
        flat, shape = _flatten(value)
        if flat and isinstance(flat[0], np.ndarray):
            return _take_numpy(_stacked(flat, shape), spec, where)
        if flat and _is_torch(flat[0]):
            _refuse(spec, where, "a list of torch tensors", "Join them: torch.stack(x)")
        if spec.datatype == "BYTES":
            return _encoded(flat, shape, spec, where)
        flat = [entry.item() if isinstance(entry, np.generic) else entry for entry in flat]
        array = _numbers(DATATYPES[spec.datatype], flat, missing=False).reshape(shape)
        _check_integers_kept(spec.datatype, flat, array)
        return array
    except _Misfit as error:
        _refuse(spec, where, f"a list with {error}" if isinstance(value, list | tuple) else str(error))


def _stacked(arrays: list[Any], shape: tuple[int, ...]) -> Storage:
    if any(type(array) is not np.ndarray or array.shape != arrays[0].shape for array in arrays):
        raise _Misfit("arrays of different shapes or kinds")
    if len({array.dtype for array in arrays}) != 1:
        raise _Misfit("arrays of different dtypes")
    return np.stack(arrays).reshape(*shape, *arrays[0].shape)


def _check_integers_kept(datatype: str, flat: list[Any], array: Storage) -> None:
    """A Python int that a float datatype can't hold exactly has lost digits without anyone asking for it."""
    if array.dtype.kind != "f" and datatype != "BF16":
        return
    kept = (_from_bf16(array) if datatype == "BF16" else array).ravel()
    for given, came in zip(flat, kept, strict=True):
        if type(given) is int and int(came) != given:
            raise _Misfit(f"an integer that {datatype} can't hold exactly")


def _refuse(spec: TensorSpec, where: str, came: str, hint: str | None = None) -> NoReturn:
    want = f"{spec.datatype} {list(spec.shape)}"
    raise InputError(f"input {spec.name!r} of {where} wants {want} and was given {came}", hint=hint) from None


def _shape_hint(spec: TensorSpec, shape: tuple[int, ...]) -> str | None:
    if len(shape) + 1 == len(spec.shape) and matches(spec, (1, *shape)):
        return "The first axis is the batch: x[None] makes one row a batch of one"
    return None


def _is_torch(value: Any) -> bool:
    torch = sys.modules.get("torch")
    # a half-imported torch (another thread is importing it) has no Tensor yet, and nobody holds one
    kind = getattr(torch, "Tensor", None)
    return kind is not None and isinstance(value, kind)


# ---------------------------------------------------------------- out: the kind that went in
@dataclass(frozen=True, slots=True)
class Kind:
    """Which sort of arrays a caller works with; `device` is a torch device, or None for numpy."""

    device: Any = None

    @classmethod
    def numpy(cls) -> Kind:
        return _NUMPY

    @classmethod
    def of(cls, values: Any) -> Kind:
        """The kind of an array, or of several (a mapping or a list): torch where one is a torch tensor."""
        if type(values) is np.ndarray:
            return _NUMPY
        if isinstance(values, Mapping):
            values = values.values()
        elif not isinstance(values, Collection) or hasattr(values, "shape"):
            values = (values,)
        for value in values:
            array = value.array if isinstance(value, Tensor) else value
            if _is_torch(array):
                return cls(array.device)
        return _NUMPY

    def give(self, tensor: Tensor) -> Any:
        """The tensor as an array of this kind, without a copy where memory and device allow.

        A numpy caller gets BF16 as float32 (the same numbers exactly). BYTES are object arrays of `bytes`
        for either kind: torch has no strings.
        """
        if self.device is None:
            array = storage(tensor)
            return _from_bf16(array) if tensor.datatype == "BF16" else array
        if tensor.datatype == "BYTES":
            return storage(tensor)
        given = tensor.array if _is_torch(tensor.array) else _to_torch(tensor)
        return given if given.device == self.device else given.to(self.device)


_NUMPY = Kind()


def _to_torch(tensor: Tensor) -> Any:
    torch: Any = sys.modules["torch"]
    array = storage(tensor)
    if not array.flags.writeable:  # torch can't mark a tensor read-only; writing to one is undefined
        array = array.copy()
    if tensor.datatype == "BF16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def storage(tensor: Tensor) -> Storage:
    """The tensor's numpy array in storage form, C-contiguous; a copy only where it isn't so already.

    Raises:
        InputError: the array isn't of the datatype that the tensor claims.
    """
    array, want = tensor.array, DATATYPES[tensor.datatype].dtype
    if type(array) is not np.ndarray:
        array = _torch_to_numpy(array) if _is_torch(array) else np.asarray(array)
    if array.dtype is want and array.flags.c_contiguous:
        return array  # type: ignore[no-any-return]
    if array.dtype != want and (array.dtype.newbyteorder("=") != want or want.kind == "O"):
        raise InputError(f"a tensor that says it is {tensor.datatype} holds {array.dtype}")
    return np.asarray(array, dtype=want, order="C")


def _torch_to_numpy(value: Any) -> Storage:
    torch: Any = sys.modules["torch"]
    try:  # one call where there is nothing to do: on the CPU, without grad, not a negated view, no bfloat16
        return np.asarray(value.numpy(), order="C")
    except (RuntimeError, TypeError):
        value = value.detach().cpu().resolve_neg().contiguous()
    if value.dtype == torch.bfloat16:
        return np.asarray(value.view(torch.int16).numpy().view(np.uint16))
    return np.asarray(value.numpy())


# ---------------------------------------------------------------- bytes
def to_bytes(tensor: Tensor) -> Buffer:
    """The elements in row-major order, little-endian, packed: a view of the tensor's memory.

    BYTES elements are joined (a copy), each after its length as 4 bytes, little-endian (binary tensor data
    extension).
    """
    array = storage(tensor)
    if tensor.datatype == "BYTES":
        return b"".join(chain.from_iterable(_prefixed(value) for value in array.flat))
    return array.data.cast("B") if array.size else b""


def _prefixed(value: Any) -> tuple[bytes, bytes]:
    try:
        element = _element(value)
        return struct.pack("<I", len(element)), element
    except (TypeError, UnicodeEncodeError, struct.error):
        raise InputError("a BYTES tensor holds something else than bytes shorter than 4 GiB") from None


def from_bytes(datatype: str, shape: Sequence[int], buffer: Buffer, where: str) -> Tensor:
    """A tensor over the bytes of a buffer: a view where they lie aligned for the datatype, else a copy.

    Raises:
        ProtocolError: the size isn't that of the shape, or the bytes aren't elements of the datatype. Nothing
            is allocated on the word of a shape or of a length.
    """
    shape, count = _counted(datatype, shape, where)
    view = buffer if isinstance(buffer, memoryview) else memoryview(buffer)
    kind = DATATYPES[datatype]
    if kind.size is None:
        return Tensor(datatype, _objects(_split(view, count, where), shape))
    if len(view) != count * kind.size:
        raise ProtocolError(f"{where} has {len(view)} bytes; {datatype} {list(shape)} takes {count * kind.size}")
    if datatype == "BOOL" and count and np.frombuffer(view, np.uint8).max() > 1:
        raise ProtocolError(f"{where} is BOOL and has bytes other than 0 and 1")
    return viewed(datatype, shape, view, 0)


def viewed(datatype: str, shape: tuple[int, ...], buffer: Buffer, start: int) -> Tensor:
    """As `from_bytes`, for bytes from `start` on that are known to be enough; not for BYTES, nor for BOOL unchecked."""
    array: Storage = np.ndarray(shape, DATATYPES[datatype].dtype, buffer, start)
    return Tensor(datatype, array if array.flags.aligned else array.copy())


def _split(view: memoryview, count: int, where: str) -> list[bytes]:
    if 4 * count > len(view):
        raise ProtocolError(f"{where} has {len(view)} bytes, too few for {count} BYTES elements")
    elements, at, end = [], 0, len(view)
    for index in range(count):
        start = at + 4
        at = start + int.from_bytes(view[at:start], "little")
        if start > end or at > end:
            raise ProtocolError(f"{where} ends inside of BYTES element {index} of {count}")
        elements.append(bytes(view[start:at]))
    if at != end:
        raise ProtocolError(f"{where} has {end - at} bytes after its last BYTES element")
    return elements


# ---------------------------------------------------------------- JSON
def to_json(tensor: Tensor) -> list[Any]:
    """The elements as flat Python values in row-major order; BYTES as text.

    Raises:
        InputError: a BYTES element isn't UTF-8; JSON can't carry it.
    """
    array = storage(tensor)
    if tensor.datatype == "BF16":
        array = _from_bf16(array)
    if tensor.datatype != "BYTES":
        return array.ravel().tolist()
    try:
        return [str(_element(value), "utf-8") for value in array.flat]
    except (TypeError, UnicodeError):
        raise InputError(
            "a BYTES tensor has elements that aren't UTF-8, which JSON can't carry",
            hint="Ask for, or use an endpoint with, the binary tensor data extension",
        ) from None


def from_json(datatype: str, shape: Sequence[int], data: Any, where: str) -> Tensor:
    """A tensor from a parsed `data` member, nested or flat. `null` in float data is NaN.

    Raises:
        ProtocolError: values of another type, out of range, ragged, or not as many as the shape says.
    """
    shape, count = _counted(datatype, shape, where)
    if type(data) is not list:
        raise ProtocolError(f"{where} has data that is no list")
    try:
        flat, _ = _flatten(data)
        if len(flat) != count:
            raise _Misfit(f"{len(flat)} elements for shape {list(shape)}")
        if datatype == "BYTES":
            return Tensor(datatype, _objects(_texts(flat), shape))
        return Tensor(datatype, _numbers(DATATYPES[datatype], flat, missing=True).reshape(shape))
    except _Misfit as error:
        raise ProtocolError(f"{where} ({datatype}) has {error}") from None


def _texts(flat: list[Any]) -> list[bytes]:
    if set(map(type, flat)) - {str}:
        raise _Misfit("values that aren't strings")
    try:
        return [text.encode() for text in flat]
    except UnicodeEncodeError:
        raise _Misfit("text that isn't Unicode") from None


# ---------------------------------------------------------------- parts
class _Misfit(Exception):  # noqa: N818 (never leaves this module)
    """Values that don't make a tensor; its text completes a message that says which."""


def _counted(datatype: str, shape: Sequence[int], where: str) -> tuple[tuple[int, ...], int]:
    """The shape as a tuple and its number of elements, known to be possible before anything is allocated."""
    kind = DATATYPES.get(datatype)
    if kind is None:
        raise ProtocolError(f"{where} has an unknown datatype")
    shape = tuple(shape)
    if len(shape) > MAX_RANK:
        raise ProtocolError(f"{where} has {len(shape)} axes; at most {MAX_RANK} are taken")
    count = room = 1
    for size in shape:
        if type(size) is not int or size < 0:
            raise ProtocolError(f"{where} has a shape that isn't a list of sizes")
        count *= size
        room *= size or 1
    if room * (kind.size or 8) > _MAX_BYTES:
        raise ProtocolError(f"{where} has a shape too large for any memory")
    return shape, count


def _flatten(value: Any) -> tuple[list[Any], tuple[int, ...]]:
    """The scalars of nested lists or tuples, row-major, and the shape of the nesting."""
    if not isinstance(value, list | tuple):
        return [value], ()
    level: list[Any] = list(value) if isinstance(value, tuple) else value
    shape = [len(level)]
    while nested := set(map(type, level)) & {list, tuple}:
        if set(map(type, level)) - nested or len(set(map(len, level))) != 1:
            raise _Misfit("ragged lists")
        if len(shape) == MAX_RANK:
            raise _Misfit(f"lists nested more than {MAX_RANK} deep")
        shape.append(len(level[0]))
        level = list(chain.from_iterable(level))
    return level, tuple(shape)


def _numbers(kind: Datatype, flat: list[Any], *, missing: bool) -> Storage:
    """Python numbers as an array, refusing what the datatype can't hold. `missing` lets None be NaN."""
    types = set(map(type, flat))
    try:
        if kind.name == "BOOL":
            return _booleans(flat, types)
        if kind.name != "BF16" and kind.dtype.kind in "iu":
            return _integers(kind, flat, types)
        return _floats(kind, flat, types - {type(None)} if missing else types)
    except OverflowError:  # a Python int past the datatype's range
        raise _Misfit("numbers out of range") from None


def _booleans(flat: list[Any], types: set[type]) -> Storage:
    if types - {bool} and (types - {bool, int} or set(flat) - {0, 1}):
        raise _Misfit("values that aren't true or false")
    return np.array(flat, np.bool_)


def _integers(kind: Datatype, flat: list[Any], types: set[type]) -> Storage:
    if float in types:
        flat = [_whole(value) for value in flat]
    if types - {int, float}:
        raise _Misfit("values that aren't integers")
    return np.array(flat, kind.dtype)


def _whole(value: Any) -> Any:
    if type(value) is not float:
        return value
    if not (value.is_integer() and abs(value) <= 2**53):  # beyond, a float may stand for several integers
        raise _Misfit("numbers that aren't integers")
    return int(value)


def _floats(kind: Datatype, flat: list[Any], types: set[type]) -> Storage:
    if types - {int, float}:
        raise _Misfit("values that aren't numbers")
    wide = np.array(flat, np.float64)
    if kind.name == "FP64":
        return wide
    bf16 = kind.name == "BF16"
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # a signalling NaN is invalid
        narrow = wide.astype(np.float32 if bf16 else kind.dtype)
    made = _to_bf16(_to_odd(wide, narrow)) if bf16 else narrow
    if (np.isinf(_from_bf16(made) if bf16 else made) & np.isfinite(wide)).any():
        raise _Misfit("numbers out of range")
    return made


def _to_odd(wide: Storage, narrow: Storage) -> Storage:
    """float32 that, rounded once more, gives what rounding float64 at once would (S. Boldo, G. Melquiond, 2008)."""
    toward_zero = narrow.view(np.uint32) - (np.abs(narrow) > np.abs(wide))
    return np.asarray(toward_zero | (narrow != wide)).astype(np.uint32).view(np.float32)


def _element(value: Any) -> bytes:
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, str):
        return value.encode()
    raise TypeError(f"{kind_of(value)} among its elements")


def _objects(elements: Iterable[bytes], shape: tuple[int, ...]) -> Storage:
    listed = list(elements)
    array = np.empty(len(listed), object)
    array[:] = listed
    return array.reshape(shape)


def _to_bf16(array: Storage) -> Storage:
    """float32 to the bits of BF16, its upper half: rounded to nearest, ties to even; NaN stays NaN."""
    bits = array.view(np.uint32)
    rounded = (bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16
    quiet = (bits >> 16) | np.uint32(0x40)  # rounding could carry a NaN over into infinity or zero
    return np.asarray(np.where(np.isnan(array), quiet, rounded).astype(np.uint16))


def _from_bf16(bits: Storage) -> Storage:
    return np.asarray(np.left_shift(bits.astype(np.uint32), 16, dtype=np.uint32)).view(np.float32)
