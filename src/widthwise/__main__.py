"""``python -m widthwise``."""

from widthwise.cli import main

main()
