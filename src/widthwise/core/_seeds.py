"""Randomness comes in as a seed; each use derives its own stream from it by name."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derived_seed(seed: int, *names: object) -> int:
    """A 63-bit seed that depends on `seed` and on the names of the use, and on nothing else.

    >>> derived_seed(0, "subset", 3) == derived_seed(0, "subset", 3) != derived_seed(0, "subset", 4)
    True
    """
    digest = hashlib.blake2b(repr((seed, *names)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, *names: object) -> torch.Generator:
    """A CPU generator for the use that `names` describes."""
    return torch.Generator().manual_seed(derived_seed(seed, *names))


@contextmanager
def seeded(seed: int, *names: object) -> Iterator[None]:
    """Seed PyTorch's global generator inside the block (for module factories), and restore it after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, *names))
        yield
