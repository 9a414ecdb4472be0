"""The notebooks run from top to bottom in a kernel of their own, and are kept without outputs."""

import json
import os
import shutil

import pytest
from launches import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# What takes minutes, and what is run in its place: the same experiment with a model that trains in seconds.
SMALL = {"experiments/wd_sweep.py:small": "experiments/tiny.py:small"}
TINY = """
from grokjax import config

small = config.small


def tiny():
    c = small()
    c.model.d_model, c.model.n_heads, c.model.d_mlp = 8, 2, 16
    return c


config.small = tiny
"""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_outputs_are_kept_and_colab_can_install(path):
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["outputs"] for cell in code] == [[]] * len(code)
    assert [cell["execution_count"] for cell in code] == [None] * len(code)
    first = "".join(code[0]["source"])
    assert "git clone ADDRESS grokjax && pip install" in first
    assert "ADDRESS is a placeholder" in first


@pytest.mark.long
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path, monkeypatch):
    if not os.environ.get("CI"):  # there nothing is skipped
        for name in ["nbclient", "ipykernel", *["torch"] * (path.stem == "your_checkpoint")]:
            pytest.importorskip(name)
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    tiny = (ROOT / "experiments" / "wd_sweep.py").read_text()
    (tmp_path / "experiments" / "tiny.py").write_text(tiny.replace("\nfrom grokjax import config\n", TINY))
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for minutes, seconds in SMALL.items():
            cell.source = cell.source.replace(minutes, seconds)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    drawn = [output for output in outputs if "image/png" in output.get("data", {})]
    if path.stem == "quickstart":
        assert len(drawn) == 3
        assert (tmp_path / "results" / "small" / "report" / "index.html").is_file()
        assert "runs" in "".join(output.get("text", "") for output in notebook.cells[5].outputs)
