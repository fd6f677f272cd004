"""Numbers of the token machine's operations and argument columns."""

(
    GRAM, TOKENS, FIXED, AFFINE, ADD, MAP, GATHER, TAPS, ZERO, PLACE, ACT, NORM, CENTRE, DIAGONAL, OUT, VARIANCE,
    SCORES, MIX,
) = range(18)  # fmt: skip
(
    CODE, DST, SRC, N, M, HEADS, AT, GIVEN, PLUS, READS, WRITES, PHI, FIRST_AT, SECOND_AT, INDEX, COUNT, KIND, MASK,
    MASK_GIVEN, WAVES,
) = range(20)  # fmt: skip
LINEAR = ("SCALE", "CONSTANT", "SCALE_T", "RATIO", "CONSTANT_T")
"""A linear map of moments and tangents; `BEHIND` names that which follows an activation."""
BEHIND = tuple(f"{name}_BEHIND" for name in LINEAR)
REAL_NAMES = (*LINEAR, *BEHIND, "CONSTANT0", "CONSTANT_T0", "FIRST", "SECOND")
SCALE, CONSTANT, SCALE_T, RATIO, CONSTANT_T = range(5)
SCALE_BEHIND, CONSTANT_BEHIND, SCALE_T_BEHIND, RATIO_BEHIND, CONSTANT_T_BEHIND = range(5, 10)
CONSTANT0, CONSTANT_T0, FIRST, SECOND = range(10, 14)
INTS, REALS = 20, 14

STD, INVERSE_STD, ERF_ROOT, SPREAD, GELU_ROOT, HALF, SCALE_OF_NORM = range(7)
"""What is kept of a variance: see `_features.transformed`; the last is the scale of a normalisation."""
KINDS = {
    "std": STD, "inverse_std": INVERSE_STD, "erf": ERF_ROOT, "variance": SPREAD, "gelu": GELU_ROOT, "half": HALF,
    "norm": SCALE_OF_NORM,
}  # fmt: skip
