"""Settings of the docs: ``sphinx-build -W docs docs/_build/html``."""

import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

# The docs describe the tree that they lie in, installed or not.
sys.path.insert(0, str(Path(__file__).parent.parent))

import skdmap

project = "skdmap"
author = "The skdmap developers"
copyright = author
version = release = skdmap.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.extlinks",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "auto_examples/*.ipynb", "conftest.py"]
templates_path = ["_templates"]

html_theme = "pydata_sphinx_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "logo": {"text": project},
    "navbar_align": "left",
    "header_links_before_dropdown": 9,
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc", "sg_download_links"],
    "icon_links": [
        {
            "name": "Source",
            "url": "https://github.com/skdmap/skdmap",
            "icon": "fa-brands fa-github",
        }
    ],
    "footer_start": ["copyright"],
    "footer_end": [],
}
# Pages without pages below them need no list of these.
html_sidebars = {
    page: [] for page in ("index", "installation", "quickstart", "theory", "benchmarks")
}
html_show_sourcelink = False

# Prompts and output stay behind when a block is copied.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True

linkcheck_ignore = [
    r"https://(github\.com/skdmap|skdmap\.readthedocs\.io).*",  # exist from the first release on
    r"https://doi\.org/.*",  # publishers refuse programs
]

myst_enable_extensions = ["dollarmath", "amsmath", "deflist", "colon_fence"]
myst_heading_anchors = 4

extlinks = {
    "doi": ("https://doi.org/%s", "doi:%s"),
    "arxiv": ("https://arxiv.org/abs/%s", "arXiv:%s"),
}

# Links into other libraries' docs need their inventories from the network, and a build without one
# would fail under -W. So they are asked for.
if os.environ.get("SKDMAP_DOCS_ONLINE") == "1":
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "sklearn": ("https://scikit-learn.org/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }
    intersphinx_timeout = 20
else:
    linkcheck_ignore.append(r"https?://.*")  # `-b linkcheck` then checks the links between pages

autosummary_generate = True
autodoc_typehints = "none"
toc_object_entries_show_parents = "hide"
# numpydoc lists methods in tables of links that autosummary would have to resolve a second time.
numpydoc_show_class_members = False

examples = Path(__file__).parent.parent / "examples"
has_gallery = any(examples.glob("plot_*.py"))
# Shown, but not run, where the extra "examples" is not installed.
needs = {"single_cells": "scanpy", "protein": "MDAnalysisTests"}
missing = [name for name, module in needs.items() if find_spec(module) is None]
not_run = f"(?!{'|'.join(missing)})" if missing else ""
if has_gallery:
    extensions.append("sphinx_gallery.gen_gallery")
    sphinx_gallery_conf = {
        "examples_dirs": str(examples),
        "gallery_dirs": "auto_examples",
        "filename_pattern": rf"/plot_{not_run}",
        "download_all_examples": False,
        "show_signature": False,
        "min_reported_time": 5,
        # Each page of the interface shows the examples that use the name.
        "backreferences_dir": "generated/backreferences",
        "doc_module": ("skdmap",),
        # For the main job, which is run by its own command and not with the gallery.
        "default_thumb_file": str(Path(__file__).parent / "images" / "readme_map.png"),
    }


def leave_out_gallery(app, docname, source):
    """Take what leads to the gallery out of the landing page."""
    if docname == "index":
        card = r":::\{grid-item-card\} Gallery.*?\n:::\n"
        without_card = re.sub(card, "", source[0], flags=re.DOTALL)
        lines = without_card.splitlines(keepends=True)
        source[0] = "".join(line for line in lines if "auto_examples" not in line)


def end_blocks(app, docname, source):
    """Drop the blank line that ends a doctest at the end of a code block."""
    source[0] = re.sub(r"\n\n```(?=\n|$)", "\n```", source[0])


def escape_fitted_names(app, what, name, obj, options, lines):
    """Escape ``n_components_`` and its like in shapes, which reStructuredText takes for links."""
    for i, line in enumerate(lines):
        shape = re.search(r"of shape \(.*\)", line)
        if shape:
            escaped = re.sub(r"(?<=\w)_(?=[,)])", r"\\_", shape[0])
            lines[i] = line.replace(shape[0], escaped)


def skip_metadata_routing(app, what, name, obj, skip, options):
    """Leave out ``set_fit_request`` and its like, which scikit-learn makes and documents."""
    return True if re.fullmatch(r"set_\w+_request", name) else skip


def setup(app):
    # Before numpydoc, which listens at priority 500.
    app.connect("autodoc-process-docstring", escape_fitted_names, priority=400)
    app.connect("autodoc-skip-member", skip_metadata_routing)
    app.connect("source-read", end_blocks)
    if not has_gallery:
        app.connect("source-read", leave_out_gallery)
        # So that `-D plot_gallery=0` is known with and without a gallery.
        app.add_config_value("plot_gallery", True, "html")
