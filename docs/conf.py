"""Sphinx settings; `make docs` builds with warnings as errors."""

from __future__ import annotations

from aiaas_sdk._version import __version__

project = "aiaas-sdk"
author = "The aiaas-sdk authors"
copyright = "The aiaas-sdk authors, Apache License 2.0"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}
default_role = "code"  # docstrings write `code` in single backticks

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autoclass_content = "class"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"aiaas-sdk {release}"
html_copy_source = False
