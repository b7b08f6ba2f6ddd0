"""Pydantic records to tensors and back.

A `Schema` is two record types; `Schema.bind` fits them to a model's signature, once, and says at once where they
can't fit; the `Bound` that it gives encodes and decodes.

Inputs: a field goes to the input of its name or alias. Where the model has one input of shape [-1, k] and no field
has its name, k scalar fields are its columns, in their order. A field that isn't for the model says
`Field(exclude=True)`.

Outputs: a field takes the output of its name or alias. `label`, `probability`, `probabilities` and `scores` are
made of a classifier's one output of scores. Where there is one output of shape [-1, k] and no field has any of these
names, k scalar fields are its columns. Outputs that no field wants are left aside.

A model without a signature is matched by name alone, when it is called.
"""

from aiaas_sdk.schema.binding import Bound, Schema

__all__ = ["Bound", "Schema"]
