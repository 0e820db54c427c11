"""``python -m bitline``."""

from bitline.cli import main

main()
