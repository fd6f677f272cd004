"""Every rule of an operation, by importing the files that register them; later ones replace earlier ones."""

from widthwise.kernels import (  # noqa: F401
    _rules_attention,
    _rules_blocks,
    _rules_contract,
    _rules_conv_variants,
    _rules_gates,
    _rules_linear,
    _rules_norm,
    _rules_pointwise,
    _rules_readout,
    _rules_recurrent,
    _rules_shape,
    _rules_shuffles,
    _rules_statistics,
    _rules_tables,
)
