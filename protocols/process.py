"""Start other programs of this package as child processes."""

from __future__ import annotations

import sys


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs `python -m module` with this interpreter.

    The child does not look for modules in the current folder (Python's `-P`), so a file such as `numpy.py` or
    `photonloop.py` in the folder where the user works cannot take the place of an installed package.

    Parameters
    ----------
    module
        Full name of the module, such as "photonloop.simulator".
    arguments
        Its arguments.

    Examples
    --------
    >>> module_command("photonloop.simulator", "--ports", "4")[1:]
    ['-P', '-m', 'photonloop.simulator', '--ports', '4']
    """
    return [sys.executable, "-P", "-m", module, *arguments]
