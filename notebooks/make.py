"""Make the notebooks from their percent scripts, with outputs: ``python notebooks/make.py [01_quickstart ...]``."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def scripts() -> list[Path]:
    """The percent scripts, in order."""
    return sorted(HERE.glob("[0-9]*.py"))


def run(script: Path, seconds: int = 900, smaller: dict[str, str] | None = None) -> object:
    """The script as a notebook that has been run; raises CellExecutionError where a cell fails.

    ``smaller`` replaces settings in its text, to try it in less time; each must be there.
    """
    import jupytext
    from nbclient import NotebookClient

    text = script.read_text(encoding="utf-8")
    for setting, less in (smaller or {}).items():
        if setting not in text:
            raise ValueError(f"{script.name} does not say {setting!r}")
        text = text.replace(setting, less)
    notebook = jupytext.reads(text, fmt="py:percent")
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    NotebookClient(
        notebook, timeout=seconds, kernel_name="python3", resources={"metadata": {"path": str(HERE)}}
    ).execute()
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
