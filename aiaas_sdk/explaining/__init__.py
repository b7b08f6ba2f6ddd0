"""`explain`: the verb as a flow, and the methods that need nothing but a model's answers.

verb        the question, who answers it, and the answer
methods     which method fits a model and its inputs
targets     which number of an answer is explained
scoring     that number for many inputs, by batches of `predict`
occlusion, shapley    which other inputs to ask about, and what their answers say
"""

from __future__ import annotations

from aiaas_sdk.explaining.verb import Explaining

__all__ = ["Explaining"]
