"""Program + inputs -> Gram matrices: the infinite-width limit and its finite stand-ins."""

from widthwise.kernels._limit import CertificateRow, KernelPair, Limit, infinite
from widthwise.kernels._lowering import RULES, rule

__all__ = ["RULES", "CertificateRow", "KernelPair", "Limit", "infinite", "rule"]
