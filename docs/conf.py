"""Sphinx configuration. The zoo table is generated from the registry while the pages are built."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))
sys.path.insert(0, str(ROOT))

from _browse import write_browser  # noqa: E402
from _commands import write_reference  # noqa: E402
from _export_table import write_export_table  # noqa: E402
from _generate import (  # noqa: E402
    write_code_table,
    write_config_table,
    write_conversion_table,
    write_family_table,
    write_hybrid_table,
    write_measured_table,
    write_nir_table,
    write_token_table,
    write_tuning_table,
    write_weights_table,
    write_zoo_table,
)

from fulgurite import __version__  # noqa: E402

project = "Fulgurite"
author = "The Fulgurite maintainers"
copyright = "2026, the Fulgurite maintainers. Apache-2.0"
release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx.ext.doctest",
]
myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 3
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
nb_execution_mode = "force"  # tutorials are stored without outputs and run here, once
nb_execution_in_temp = True  # what they write stays out of the checkout
nb_execution_timeout = 300  # seconds a cell, for machines that are busy
nb_execution_raise_on_error = True
os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # of tqdm in notebooks, which misses a widget
exclude_patterns = ["_build", "browse.html", "generated/site"]
html_theme = "furo"
html_title = f"Fulgurite {release}"
html_extra_path = ["generated/site"]  # browse.html, a page of its own
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_default_options = {"show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
suppress_warnings = ["ref.python"]  # one name may be exported by a package and its module
nitpicky = True
# Other projects' names are not linked: their inventories would have to be downloaded.
nitpick_ignore_regex = [
    ("py:.*", r"(?!(spiking|zoo|conversion|lightning_modules|datamodules|cli)\.).*"),
    ("py:.*", r".*\._.*"),
    # types that appear in signatures and have no page of their own
    ("py:class", r"zoo\.(registry\.F|tokens\.hooks\.Point)"),
    ("py:class", r"spiking\.neurons\.N"),
    ("py:class", r"datamodules\.(loading\.datasets\.BatchDataset|events\.readers\.Events)"),
]

_generated = ROOT / "docs" / "generated"
_generated.mkdir(exist_ok=True)
write_zoo_table(_generated / "zoo_table.md")
write_reference(_generated / "cli.txt")  # no page of its own, so no .md
write_browser(ROOT / "configs", _generated / "site" / "browse.html")
write_weights_table(_generated / "weights_table.md")
write_config_table(ROOT / "configs", _generated / "config_table.md")
write_measured_table(ROOT / "benchmarks" / "real_runs.csv", _generated / "measured_table.md")
write_conversion_table(ROOT / "benchmarks" / "conversion_table.csv", _generated / "conversion_table.md")
write_code_table(ROOT / "benchmarks" / "code_table.csv", _generated / "code_table.md")
write_family_table(ROOT / "benchmarks" / "family_table.jsonl", _generated / "family_table.md")
write_token_table(ROOT / "benchmarks" / "token_table.csv", _generated / "token_table.md")
write_hybrid_table(ROOT / "benchmarks" / "hybrid_table.csv", _generated / "hybrid_table.md")
write_tuning_table(ROOT / "benchmarks" / "hybrid_table.csv", _generated / "tuning_table.md")
write_nir_table(ROOT / "benchmarks" / "nir_table.csv", _generated / "nir_table.md")
write_export_table(ROOT / "benchmarks" / "export.jsonl", _generated / "export_table.md")
