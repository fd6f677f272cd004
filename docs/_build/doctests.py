"""Griffe extension: doctest examples in docstrings become fenced code blocks."""

from typing import Any

import griffe

PROMPT = ">>>"


def fenced(text: str) -> str:
    """Put every paragraph that starts with a prompt into a fence.

    >>> print(fenced("Words.\\n\\n>>> 1 + 1\\n2"))
    Words.
    <BLANKLINE>
    ```pycon
    >>> 1 + 1
    2
    ```
    """
    paragraphs = text.split("\n\n")
    return "\n\n".join(
        f"```pycon\n{paragraph}\n```" if paragraph.lstrip().startswith(PROMPT) else paragraph
        for paragraph in paragraphs
    )


class Doctests(griffe.Extension):
    """Rewrites docstrings as they are read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called once for each module, class, function and attribute."""
        if obj.docstring is not None and PROMPT in obj.docstring.value:
            obj.docstring.value = fenced(obj.docstring.value)
