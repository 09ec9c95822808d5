"""Our own programs as child processes: `python -m MODULE` that finds pegbox, and takes no module from the folder that
it works in. A folder with a stranger's model in it may hold a `torch.py`."""

import os
import site
import sys
from pathlib import Path

import pegbox


def command(module: str, *arguments: str) -> list[str]:
    """The words that start it. Its environment needs `import_path` as PYTHONPATH."""
    return [sys.executable, "-P", "-m", module, *arguments]


def import_path() -> str:
    """As this process's own; and where pegbox is, if it was found without, as in a checkout."""
    given = os.environ.get("PYTHONPATH", "")
    root = str(Path(pegbox.__file__).resolve().parents[1])
    known = root in site.getsitepackages() or root in given.split(os.pathsep)
    return given if known else os.pathsep.join(filter(None, (given, root)))
