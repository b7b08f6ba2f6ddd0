"""MLServer's models."""

from __future__ import annotations

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Tiny(MLModel):
    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        return self._answer(payload, NumpyCodec.decode_input(payload.inputs[0]))

    def _answer(self, payload: InferenceRequest, y: object) -> InferenceResponse:
        output = NumpyCodec.encode_output("y", y)
        return InferenceResponse(id=payload.id, model_name=self.name, model_version=self.version, outputs=[output])


class Digits(Tiny):
    async def load(self) -> bool:
        from digits import forward

        self._forward = forward
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        return self._answer(payload, self._forward(NumpyCodec.decode_input(payload.inputs[0])))
