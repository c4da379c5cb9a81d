"""The command line: `main`, and one module per command with its flags.

It may import every folder; no other folder may import it.
"""

from pipeline.cli.main import main as main
from pipeline.cli.main import parser as parser
