"""The command line: `main` and one module for each command, beside its flags.

It may import every folder; no other folder may import it.
"""

from pipeline.cli.interrupts import ends_at_once

with ends_at_once():
    from pipeline.cli.main import main as main
    from pipeline.cli.main import parser as parser
