"""The fused engine: all layers of a network on one displacement of two images at a time, in cache.

A stride-1 convolution maps the covariances of positions (p, p + d) to those with the same displacement d, so that
the recursion runs through many layers on one plane of covariances before the next displacement is touched. A block
carries `lanes` pairs of inputs side by side, which fill the vector registers at any plane size.
"""

from typing import no_type_check

import numpy as np
from numba import njit

from widthwise.kernels.engines import _rows as rows
from widthwise.kernels.engines._codes import (
    ABRELU,
    CODE,
    COLUMNS,
    CONV,
    DST,
    FLAT,
    GIVEN,
    INDEX,
    INTS,
    LOAD,
    MX,
    MY,
    OUT,
    PHI,
    RAW,
    REALS,
    REDUCE,
    ROWS,
    SCALE,
    SCATTER,
    SRC,
    TH,
    TW,
    WHERE,
    H,
    W,
)
from widthwise.kernels.engines._passes import (
    OPTIONS,
    copy,
    fill,
    scatter,
)
from widthwise.kernels.engines._planes import convolve, load, reduce, run_rows
from widthwise.kernels.engines._rows import view
from widthwise.kernels.engines._vectors import REGISTER_BYTES
from widthwise.kernels.engines._windows import fits, is_summed, products, summed_windows, windows


@njit(**OPTIONS)
@no_type_check
def aligned(count, real):
    """Zeros that begin where a register's worth of memory does."""
    found = np.zeros(count + REGISTER_BYTES, real)
    start = (-found.ctypes.data % REGISTER_BYTES) // found.itemsize
    return found[start : start + count]


@njit(**OPTIONS)
@no_type_check
def gather(out, data, used, which, lanes):
    """Interleave the features of a block's inputs: ``out[place * lanes + lane]``."""
    rows.own_code()
    same = True
    for lane in range(1, lanes):
        same = same and which[lane] == which[0]
    if same:
        row = view(data, which[0] * used, used)
        for place in range(used):
            value = row[place]
            for lane in range(lanes):
                out[place * lanes + lane] = value
        return
    for start in range(0, used, 64):
        for lane in range(lanes):
            row = view(data, which[lane] * used, used)
            for place in range(start, min(start + 64, used)):
                out[place * lanes + lane] = row[place]


@njit(**OPTIONS)
@no_type_check
def run_blocks(
    blocks, lanes, left, right, diagonal, data1, data2, given, ops, pars, starts, shifts, shift_starts, where, lists,
    weights, arcs, sizes, results,
):  # fmt: skip
    """Evaluate a range of blocks of `lanes` pairs each.

    Args:
        blocks: first and last + 1.
        left, right: index of each pair's inputs, ``[pairs]``, a multiple of `lanes`.
        diagonal: whether each pair is an input with itself.
        data1, data2: features of every input, ``[n * places]``.
        given: covariances at the input of each pair (dense networks), ``[fields * pairs]``.
        ops, pars: integer and real arguments of all operations; ``starts`` cuts them into stages.
        shifts: displacements; ``shift_starts`` cuts them into stages.
        arcs: the table of `_windows.abrelu` for each operation.
        sizes: positions of a slot area, of a position buffer, longest row, rows of a ring, number of sums, places.
        results: ``[outputs * 2 * pairs]``.
    """
    area, buffer, longest, ring_rows, count = sizes[0] * lanes, sizes[1] * lanes, sizes[2] * lanes, sizes[3], sizes[4]
    real = pars.dtype
    places = sizes[5]
    spare, terms = 2 * area, arcs.size // starts[starts.size - 1]
    ws = aligned(spare + 3 * longest, real)
    buffers = aligned(2 * buffer, real)
    ring = aligned(2 * ring_rows * longest, real)
    least, none = aligned(longest, real), aligned(longest, real)
    sums = np.zeros(count * 2 * lanes)
    x, y = aligned(places * lanes, real), aligned(places * lanes, real)
    before = np.full(lanes, -1, np.int64)
    for block in range(blocks[0], blocks[1]):
        first = block * lanes
        ours, theirs = view(left, first, lanes), view(right, first, lanes)
        gather(x, data1, places, ours, lanes)
        changed = False
        for lane in range(lanes):
            changed = changed or before[lane] != theirs[lane]
            before[lane] = theirs[lane]
        if changed:
            gather(y, data2, places, before, lanes)
        fill(sums, 0.0)
        fill(buffers, real.type(0.0))
        own = False
        for lane in range(lanes):
            own = own or diagonal[first + lane]
        if own:
            for place in range(longest // lanes):
                for lane in range(lanes):
                    least[place * lanes + lane] = 1.0 if diagonal[first + lane] else 0.0
        for stage in range(starts.size - 1):
            for number in range(shift_starts[stage], shift_starts[stage + 1]):
                for index in range(starts[stage], starts[stage + 1]):
                    op, par = view(ops, index * INTS, INTS), view(pars, index * REALS, REALS)
                    code = op[CODE]
                    shift = (shifts[number, 0] * op[MY], shifts[number, 1] * op[MX])
                    here = shift[0] == 0 and shift[1] == 0
                    floor = least if own and here else none
                    if code == CONV and fits(op):
                        table = view(arcs, index * terms, terms)
                        if is_summed(op):
                            after = index + 1
                            if here or ops[after * INTS + CODE] == REDUCE:
                                total = view(sums, ops[after * INTS + INDEX] * 2 * lanes, 2 * lanes)
                                weight = np.float64(pars[after * REALS + SCALE])
                                summed_windows(
                                    ws, area, op, par, shift, lanes, x, y, floor, spare, longest, table, total, weight
                                )
                            continue
                        windows(ws, area, op, par, shift, lanes, x, y, floor, spare, longest, table)
                        if op[PHI] >= 0 and op[PHI] != ABRELU:
                            run_rows(ws, area, op, par, shift, lanes, x, y, floor)
                    elif code == CONV:
                        convolve(ws, area, op, par, shift, lanes, ring, x, y, floor, none)
                    elif code == RAW:
                        products(ws, op, par, shift, lanes, x, y)
                    elif code == LOAD:
                        load(ws, area, op, shift, lanes, where, buffers, sums)
                    elif code in (REDUCE, FLAT):
                        done = index > starts[stage] and is_summed(view(ops, (index - 1) * INTS, INTS))
                        if not done and (here or code == REDUCE):
                            reduce(ws, area, op, par, shift, lanes, ring, sums)
                    elif code == SCATTER:
                        at = op[SRC] * lanes
                        scatter(
                            view(ws, at, area), view(ws, at + area, area), lanes,
                            (op[H], op[W]), shift, (op[TH], op[TW]),
                            where, op[WHERE], lists, weights, op[ROWS], op[COLUMNS], view(buffers, 0, buffer),
                            view(buffers, buffer, buffer),
                        )  # fmt: skip
                    elif code == GIVEN:
                        at = op[DST] * lanes
                        copy(view(ws, at, lanes), view(given, op[INDEX] * left.size + first, lanes))
                        fill(view(ws, at + area, lanes), pars.dtype.type(0.0))
                    elif code == OUT:
                        at = op[SRC] * lanes
                        for lane in range(lanes):
                            results[op[INDEX] * 2 * left.size + first + lane] = ws[at + lane]
                            results[(op[INDEX] * 2 + 1) * left.size + first + lane] = ws[at + area + lane]
                    else:
                        run_rows(ws, area, op, par, shift, lanes, x, y, floor)
