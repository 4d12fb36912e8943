"""As a script: execute the notebook argv[1] in the folder argv[2], and write it with its outputs to argv[3].

In a process of its own, because what Jupyter's client warns of is no business of the tests.
"""

from __future__ import annotations

import sys

import nbformat
from nbclient import NotebookClient


def main(source: str, folder: str, target: str) -> None:
    notebook = nbformat.read(source, as_version=4)
    NotebookClient(notebook, timeout=100, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    nbformat.write(notebook, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
