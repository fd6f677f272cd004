"""The errors that a user can meet: one sentence that names the value, the place and the mend."""


class WidthwiseError(Exception):
    """Base of every error that Widthwise raises on purpose. The command line prints it and exits with 2."""


class DataError(WidthwiseError):
    """The data set cannot be used as it is (missing, empty, not finite, wrong length, one class)."""


class ModelError(WidthwiseError):
    """The module or its factory cannot be used (it raises, or it does not accept the inputs)."""


class TraceError(ModelError):
    """`torch.export` cannot trace the module."""


class UnsupportedOperation(WidthwiseError):
    """An operation of the module has no infinite-width rule.

    Attributes:
        op: the operation, for example ``"aten.max_pool2d.default"``.
        module_path: where it stands in the module, for example ``"layer1.0.pool"``.
    """

    def __init__(self, op: str, module_path: str, reason: str = "no infinite-width rule is known for it") -> None:
        self.op = op
        self.module_path = module_path
        place = f" in module '{module_path}'" if module_path else ""
        super().__init__(
            f"operation {op}{place}: {reason}; "
            "use ww.empirical_ntk or ww.monte_carlo_kernel instead (in a forecast kernel='empirical' or "
            "kernel='monte-carlo')."
        )


class ResourceError(WidthwiseError):
    """The work would not fit in memory or on disk, as predicted before it starts."""


class OutputError(WidthwiseError):
    """A result cannot be written where it was asked to go."""
