"""``python -m xpmfs``: the command of this package."""

import os
import sys

from ._command import find_command

command = find_command()
os.execv(command, [command, *sys.argv[1:]])
