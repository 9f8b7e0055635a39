"""Sphinx's settings for the documentation site; `tools/site` lays out its sources and builds it."""

from colobench import __version__

project = "colobench"
version = release = __version__
html_title = "colobench"
copyright = "the colobench authors, Apache-2.0"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"

# Notebooks are shown as they are committed: running all of them takes minutes, and a session
# that is shown without its kernel has dead buttons.
nb_execution_mode = "off"
# Pages load nothing from elsewhere.
nb_ipywidgets_js: dict[str, dict[str, str]] = {}
html_show_sourcelink = False

# Headings are named as GitHub and JupyterLab name them, so that links work in all three.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

default_role = "code"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False
# Attributes and properties of one name are described once.
napoleon_use_ivar = True
