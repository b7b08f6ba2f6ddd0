"""The backends that come with the package, each behind its entry point; `base` is the author's interface."""
