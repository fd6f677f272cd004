"""Memory is predicted before work starts, not discovered by a crash."""

import psutil

from widthwise.core._errors import ResourceError


def available_bytes() -> int:
    """Bytes of memory that a new allocation can take without swapping."""
    return int(psutil.virtual_memory().available)


def require_memory(needed_bytes: float, what: str, mend: str) -> None:
    """Refuse work that will not fit.

    Raises:
        ResourceError: more than 90 % of the available memory is needed.
    """
    available = available_bytes()
    if needed_bytes > 0.9 * available:
        raise ResourceError(
            f"{what} needs about {needed_bytes / 2**30:.1f} GiB and {available / 2**30:.1f} GiB are available; {mend}"
        )
