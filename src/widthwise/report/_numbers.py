"""Numbers as a reader wants them: few significant digits, no NaN, thin grouping of thousands."""

import math
import textwrap

MISSING = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


def number(value: float | None, digits: int = 3) -> str:
    """`value` to `digits` significant digits; an en dash where there is none.

    >>> number(0.20431), number(1234.5), number(2.4e-6), number(None), number(float("inf"))
    ('0.204', '1230', '2.4e-6', '–', 'infinite')
    """
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "infinite" if value > 0 else f"{MINUS}infinite"
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    exponent = math.floor(math.log10(abs(rounded)))
    if exponent < -4 or exponent > 6:
        mantissa = f"{rounded / 10.0**exponent:.{digits - 1}f}".rstrip("0").rstrip(".")
        return f"{mantissa}e{exponent}".replace("-", MINUS if mantissa.startswith("-") else "-")
    text = f"{rounded:.{max(digits - 1 - exponent, 0)}f}"
    return _grouped(text).replace("-", MINUS)


def count(value: int | None) -> str:
    r"""A whole number, with thousands apart (by no-break spaces) from 10 000 on.

    >>> count(8000), count(1200000)
    ('8000', '1\xa0200\xa0000')
    """
    return MISSING if value is None else _grouped(str(value)).replace("-", MINUS)


def percent(share: float | None, digits: int = 1) -> str:
    """A share as a percentage.

    >>> percent(0.8734), percent(None)
    ('87.3 %', '–')
    """
    if share is None or not math.isfinite(share):
        return MISSING
    return f"{100 * share:.{digits}f} %".replace("-", MINUS)


def with_error(value: float | None, error: float | None, digits: int = 2) -> str:
    """A value with its standard error, rounded to the significant `digits` that the error keeps.

    >>> with_error(1.3123, 0.0412), with_error(0.21, None), with_error(1.3123, 0.0412, 1)
    ('1.312 ± 0.041', '0.210', '1.31 ± 0.04')
    """
    if value is None or error is None or not math.isfinite(value) or not math.isfinite(error) or error <= 0:
        return number(value)
    places = digits - 1 - math.floor(math.log10(float(f"{error:.{digits - 1}e}")))
    if not 0 <= places <= 6:
        return f"{number(value)} \N{PLUS-MINUS SIGN} {number(error, digits)}"
    return f"{value:.{places}f} \N{PLUS-MINUS SIGN} {error:.{places}f}".replace("-", MINUS)


def interval(low: float, high: float, digits: int = 3) -> str:
    """From low to high.

    >>> interval(0.171, 0.19)
    '0.171 to 0.190'
    """
    return f"{number(low, digits)} to {number(high, digits)}"


def shorten(text: str, most: int) -> str:
    """`text`, its beginning cut where it is longer than `most` characters (module paths differ at their ends).

    >>> shorten("encoder.layers.11.mlp.out", 12)
    '…11.mlp.out'
    """
    if len(text) <= most:
        return text
    return "\N{HORIZONTAL ELLIPSIS}" + text[len(text) - most + 1 :].lstrip(".")


def wrap(text: str, width: int = 24, most: int = 110) -> list[str]:
    """Lines of about `width` characters, broken between words; a text longer than `most` loses its end.

    >>> wrap("Double the data, to 8000 examples")
    ['Double the data, to 8000', 'examples']
    """
    if len(text) > most:
        text = text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return textwrap.wrap(text, width) or [""]


def _grouped(text: str) -> str:
    whole, dot, rest = text.partition(".")
    sign, whole = ("-", whole[1:]) if whole.startswith("-") else ("", whole)
    if len(whole) > 4:
        whole = f"{int(whole):,}".replace(",", "\N{NO-BREAK SPACE}")
    return sign + whole + dot + rest
