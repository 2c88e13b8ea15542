"""How `make docs` builds these pages with Sphinx."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from sphinx.addnodes import desc_annotation, desc_signature

# Airflow makes its home where none is, as soon as it is imported.
os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="airflow-video-docs-"))

from airflow_video_provider import __version__

project = "airflow-video-provider"
author = "The airflow-video-provider maintainers"
project_copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"airflow-video-provider {__version__}"
# Nothing is loaded from elsewhere: the pages can be read without a network.
html_copy_source = False
html_show_sourcelink = False

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "description"
# A class and its __init__ share one docstring here; types are for what that documents.
autodoc_typehints_description_target = "documented"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True

# A reference to something of this package must lead somewhere; those to other packages may not.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!airflow_video_provider\b).*")]


def _without_validators(app: Any, domain: str, kind: str, content: Any) -> None:
    """Leave out the type of a field where it is code of pydantic's: the text says what is taken."""
    if kind == "attribute":
        for signature in content.parent.findall(desc_signature):
            for annotation in list(signature.findall(desc_annotation)):
                if "Annotated[" in annotation.astext():
                    annotation.parent.remove(annotation)


def setup(app: Any) -> None:
    """See Sphinx: called once, before anything is read."""
    app.connect("object-description-transform", _without_validators)
