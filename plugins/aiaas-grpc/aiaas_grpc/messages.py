"""The protocol's messages, in a descriptor pool of their own.

Source: kserve/open-inference-protocol `specification/protocol/open_inference_grpc.proto`; `parameters` of a model's
metadata is MLServer's addition (`proto/dataplane.proto`), streams are Triton's (`protobuf/grpc_service.proto` of
triton-inference-server/common), and grpc.health.v1 is gRPC's own health check.

Every client of this protocol registers the same names ("inference.ModelInferRequest") in protobuf's one default pool,
which refuses the second of them: tritonclient.grpc and kserve can't be imported into one process. These are kept
apart, so that either can be imported beside them, before or after.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

__all__ = ["HEALTH", "RAW_INPUTS", "RAW_OUTPUTS", "SERVICE", "STREAMED", "message", "pool"]

SERVICE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"
RAW_INPUTS, RAW_OUTPUTS = 7, 6
"""The numbers of the fields that hold tensors as bytes, in a request and in a response."""
STREAMED = 2
"""The number of the field that holds the response in one of a stream."""

_TENSOR = "name=1:string datatype=2:string shape=3:int64*"
_FULL_TENSOR = f"{_TENSOR} parameters=4:{{}} contents=5:InferTensorContents"
_ANSWERED = "model_name=1:string model_version=2:string id=3:string parameters=4:{}"

_INFERENCE = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live=1:bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready=1:bool",
    "ModelReadyRequest": "name=1:string version=2:string",
    "ModelReadyResponse": "ready=1:bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "name=1:string version=2:string extensions=3:string*",
    "ModelMetadataRequest": "name=1:string version=2:string",
    "ModelMetadataResponse": (
        "name=1:string versions=2:string* platform=3:string inputs=4:ModelMetadataResponse.TensorMetadata*"
        " outputs=5:ModelMetadataResponse.TensorMetadata* parameters=6:{}"
    ),
    "ModelMetadataResponse.TensorMetadata": _TENSOR,
    "ModelInferRequest": (
        f"{_ANSWERED} inputs=5:ModelInferRequest.InferInputTensor*"
        f" outputs=6:ModelInferRequest.InferRequestedOutputTensor* raw_input_contents={RAW_INPUTS}:bytes*"
    ),
    "ModelInferRequest.InferInputTensor": _FULL_TENSOR,
    "ModelInferRequest.InferRequestedOutputTensor": "name=1:string parameters=2:{}",
    "ModelInferResponse": (
        f"{_ANSWERED} outputs=5:ModelInferResponse.InferOutputTensor* raw_output_contents={RAW_OUTPUTS}:bytes*"
    ),
    "ModelInferResponse.InferOutputTensor": _FULL_TENSOR,
    "ModelStreamInferResponse": f"error_message=1:string infer_response={STREAMED}:ModelInferResponse",
    "InferParameter": (
        "bool_param=1:bool? int64_param=2:int64? string_param=3:string? double_param=4:double? uint64_param=5:uint64?"
    ),
    "InferTensorContents": (
        "bool_contents=1:bool* int_contents=2:int32* int64_contents=3:int64* uint_contents=4:uint32*"
        " uint64_contents=5:uint64* fp32_contents=6:float* fp64_contents=7:double* bytes_contents=8:bytes*"
    ),
}
"""Message -> fields, NAME=NUMBER:TYPE. `*` is repeated, `?` one of a choice, `{}` a map from text to InferParameter."""

_HEALTH_CHECK = {
    "HealthCheckRequest": "service=1:string",
    "HealthCheckResponse": "status=1:int32",  # an enum, which travels as a number
}


def _described(package: str, messages: dict[str, str]) -> FileDescriptorProto:
    file = FileDescriptorProto(name=f"aiaas/{package}.proto", package=package, syntax="proto3")
    known: dict[str, DescriptorProto] = {}
    for name, fields in messages.items():
        outer, _, own = name.rpartition(".")
        made = known[name] = (known[outer].nested_type if outer else file.message_type).add(name=own)
        for field in fields.split():
            _add_field(made, f".{package}.", name, field)
    return file


def _add_field(made: DescriptorProto, package: str, owner: str, text: str) -> None:
    name, _, rest = text.partition("=")
    number, _, kind = rest.partition(":")
    field = made.field.add(name=name, number=int(number), label=FieldDescriptorProto.LABEL_OPTIONAL)
    if kind == "{}":
        kind = f"{owner}.ParametersEntry*"
        entry = made.nested_type.add(name="ParametersEntry")
        entry.options.map_entry = True
        for part in ("key=1:string", "value=2:InferParameter"):
            _add_field(entry, package, "", part)
    if kind[-1] == "*":
        field.label = FieldDescriptorProto.LABEL_REPEATED
    elif kind[-1] == "?":
        field.oneof_index = 0
        if not made.oneof_decl:
            made.oneof_decl.add(name="parameter_choice")
    kind = kind.rstrip("*?")
    if kind[0].isupper():
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, package + kind
    else:
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")


pool = DescriptorPool()
pool.Add(_described("inference", _INFERENCE))
pool.Add(_described("grpc.health.v1", _HEALTH_CHECK))


def message(name: str) -> Any:
    """The class of a message by its full name."""
    return GetMessageClass(pool.FindMessageTypeByName(name))
