"""Run an experiment of experiments/: python launch.py --experiment=NAME (see --help)."""

import sys

from jaxtl import cli

if __name__ == "__main__":
    cli.program(sys.argv)
