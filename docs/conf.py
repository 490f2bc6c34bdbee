"""Configuration of the documentation."""

import pyro_tkam

project = "pyro-tkam"
author = "The pyro-tkam developers"
release = version = pyro_tkam.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"pyro-tkam {release}"

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the :param: lines say it in words
autodoc_default_options = {"members": True, "imported-members": True, "show-inheritance": True}
python_use_unqualified_type_names = True
