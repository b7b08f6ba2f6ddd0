"""Calls of models kept in a file, and answered from it again.

calls       what was asked, and what came of it
questions   what each verb is asked
answers     what each verb answers
speech      what language models say, as JSON
tensors     a tensor as JSON
values      values that others made, as JSON
failures    an error as JSON
files       the file: a line for each call
playback    which recorded call answers a call
difference  what a call has that a recorded one hasn't
"""
