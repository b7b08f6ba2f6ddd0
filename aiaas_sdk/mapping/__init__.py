"""`map`: rows into batches, batches into calls side by side, answers back into rows.

chunks      rows -> batches of consecutive rows of one shape; views of an array
lanes       batches asked side by side, answered in order, in threads or in tasks
pacing      how many at once
course      one map on its way: the steps of a batch, written once for both faces
checkpoint  answers on disk: an `entry` for each batch, in a `journal` that a kill leaves usable
progress    the line on stderr
inputs      what a user hands over, by input name; `predict` uses it as well
"""

from aiaas_sdk.mapping.chunks import AwaitedChunks, Chunk, chunks, length, size
from aiaas_sdk.mapping.course import Course, OnError, check
from aiaas_sdk.mapping.inputs import given, records_in
from aiaas_sdk.mapping.pacing import MOST, Pace
from aiaas_sdk.mapping.progress import Progress

__all__ = [
    "MOST",
    "AwaitedChunks",
    "Chunk",
    "Course",
    "OnError",
    "Pace",
    "Progress",
    "check",
    "chunks",
    "given",
    "length",
    "records_in",
    "size",
]
