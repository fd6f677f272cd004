"""Plans of a network, made once."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from widthwise.kernels._fields import Field

if TYPE_CHECKING:
    from widthwise.kernels._limit import Limit

PLANS_KEPT = 8  # per network: outputs are fields, some of which are made anew for each call

_plans: "WeakKeyDictionary[Limit, dict[tuple, tuple[Any, tuple[Field, ...]]]]" = WeakKeyDictionary()


def kept(limit: "Limit", key: tuple, fields: tuple[Field, ...], make: Callable[[], Any]) -> Any:
    """What `make` gives for these outputs of a network, remembered as long as the network lives."""
    known = _plans.setdefault(limit, {})
    whole = (*key, *map(id, fields))
    if whole not in known:
        found = make()
        while len(known) >= PLANS_KEPT:
            del known[next(iter(known))]
        known[whole] = (found, fields)
    return known[whole][0]
