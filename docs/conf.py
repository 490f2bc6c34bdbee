"""Configuration of the documentation."""

import os
import re
import sys
from pathlib import Path

import pyro_tkam

sys.path.insert(0, str(Path(__file__).parent))  # for the modules beside this file

import inventories

project = "pyro-tkam"
FULL = "PYRO_TKAM_FULL" in os.environ  # `make docs-full` trains the tutorials' models in full
author = "The pyro-tkam developers"
project_copyright = "the pyro-tkam developers"
release = version = pyro_tkam.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
    "benchmark_tables",
    "reproduction_directive",
    "summary_directive",
    "sphinx.ext.intersphinx",
]
exclude_patterns = ["_build"]
intersphinx_mapping = inventories.mapping()
autosummary_generate = False
maximum_signature_line_length = 90
html_theme = "furo"
html_title = f"pyro-tkam {release}"
html_static_path = ["_static"]
html_css_files = ["gallery.css"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
HOSTS = [
    "TorchDistribution",
    "TorchDistributionMixin",
    "Distribution",
    "PyroModule",
    "Module",
    "ELBO",
    "MCMCKernel",
    "Reparam",
    "LightningModule",
    "_DeviceDtypeModuleMixin",
    "HyperparametersMixin",
    "ModelHooks",
    "DataHooks",
    "CheckpointHooks",
    "Callback",
    "BaseEstimator",
    "_MetadataRequester",
    "ClassifierMixin",
    "RegressorMixin",
    "tuple",
    "object",
]
autodoc_default_options = {
    "members": True,
    "imported-members": True,
    "show-inheritance": True,
    # Our own base classes' methods belong to the page; those of the hosts' classes are in the
    # hosts' manuals.
    "inherited-members": ",".join(HOSTS),
}
python_use_unqualified_type_names = True

if not FULL:
    os.environ["PYRO_TKAM_SMALL"] = "1"
sphinx_gallery_conf = {
    "examples_dirs": "../tutorials",
    "gallery_dirs": "tutorials",
    "filename_pattern": r"/\d\d_",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "parallel": 2,
    "capture_repr": (),  # print says what is to be read
    "thumbnail_size": (600, 240),
    "remove_config_comments": True,
}

SMALL_NOTE = """.. note::

   Built on small settings, so that figures and numbers below are not those that the text describes.
   ``make docs-full`` trains in full.

"""


def note_small_runs(app, docname, source):
    """Say on each tutorial's page that it was built on small settings."""
    if docname.startswith("tutorials/") and docname[len("tutorials/")].isdigit() and not FULL:
        heading = re.search(
            r"^=+\n", source[0].split("sphx-glr-example-title", 1)[-1], flags=re.MULTILINE
        )
        if heading is not None:
            place = len(source[0]) - len(heading.string) + heading.end()
            source[0] = f"{source[0][:place]}\n{SMALL_NOTE}{source[0][place:]}"


def setup(app):
    """Register the note."""
    app.connect("source-read", note_small_runs)
