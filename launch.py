"""Run an experiment of experiments/: python launch.py --experiment=NAME (see --help)."""

import sys

from jaxtl import stopping

if __name__ == "__main__":
    stopping.listen()  # before what takes a while to import
    from jaxtl import cli

    cli.program(sys.argv)
