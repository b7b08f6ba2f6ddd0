"""Who watches calls: installed observers, those that an application registers, and our own log.

An observer is a plugin with hooks (`aiaas_sdk.hookspecs`). A call that none of them wants has no `Watch`; else its
watch tells them that it started, of each of its requests, and how it ended. An observer that fails breaks no call.
"""

from aiaas_sdk.observing.observers import Observation, find, observe
from aiaas_sdk.observing.passing import pass_on, passed_on
from aiaas_sdk.observing.watch import Watch, watched, watching

__all__ = ["Observation", "Watch", "find", "observe", "pass_on", "passed_on", "watched", "watching"]
