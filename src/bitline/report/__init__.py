"""What an evaluation says, for people: an HTML page and terminal tables."""

from bitline.report.html import write
from bitline.report.terminal import print_evaluation, print_sweep

__all__ = ["print_evaluation", "print_sweep", "write"]
