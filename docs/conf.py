"""The site: `python -m sphinx -W -n docs docs/_build`. Nothing is fetched when it is built or read."""

from grokjax.version import __version__

project = "grokjax"
author = "The grokjax authors"
copyright = author
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
nitpicky = True
# What other libraries define is not looked up, since that would need their sites; what grokjax defines must be there.
nitpick_ignore_regex = [("py:.*", r"(?!grokjax\.).*")]

myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
default_role = "literal"

html_theme = "furo"
html_title = "grokjax"
html_static_path = ["_static"]
html_css_files = ["wide_tables.css"]
html_copy_source = False
html_show_sphinx = False
