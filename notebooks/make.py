"""Make the notebooks from their percent scripts, with outputs: ``python notebooks/make.py [01_quickstart ...]``."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def scripts() -> list[Path]:
    """The percent scripts, in order."""
    return sorted(HERE.glob("[0-9]*.py"))


def run(script: Path, seconds: int = 300) -> object:
    """The script as a notebook that has been run; raises CellExecutionError where a cell fails."""
    import jupytext
    from nbclient import NotebookClient

    notebook = jupytext.read(script)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    NotebookClient(notebook, timeout=seconds, kernel_name="python3", resources={"metadata": {"path": str(HERE)}}).execute()
    for cell in notebook.cells:
        cell.pop("id", None)  # made anew each time: the file would change with every run
        cell.metadata.pop("execution", None)
    notebook.nbformat_minor = 4
    return notebook


if __name__ == "__main__":
    import nbformat

    for script in scripts():
        if len(sys.argv) == 1 or script.stem in sys.argv[1:]:
            nbformat.write(run(script), script.with_suffix(".ipynb"))
            print(f"made {script.with_suffix('.ipynb').name}")
