"""How Sphinx builds these pages: ``tox -e docs``. New pages enter the navigation by themselves."""

from importlib.metadata import version as installed_version

project = "link_kv"
author = "the link_kv contributors"
project_copyright = author
version = release = installed_version("link_kv")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]

# Links such as page.md#a-heading are checked.
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

# Every public module, with what it defines; names that it imports are documented where they are defined.
autosummary_generate = True
autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    # What a public class has from a private one is its own. What these have, Python describes, or b3j0f.conf.
    "inherited-members": "Mapping,MutableMapping,MutableSequence,BaseException,tuple,object,"
    "Annotation,CompositeModelElement,ConfDriver,ModelElement",
    # These have no underscore, as modules call each other, and are not for callers.
    "exclude-members": "begin,detach,feed,hand,offer,tell",
}
# Those under "Attributes:" are properties, which have an entry of their own.
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
# `name` in a docstring is code, as in Markdown.
default_role = "literal"

html_theme = "furo"
html_title = f"link_kv {release}"
html_static_path: list[str] = []
