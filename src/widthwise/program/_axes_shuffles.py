"""Axis rules of operations that move entries between channels and positions."""

from math import prod

from widthwise.program._axes import Axes, Call, axis_rule


@axis_rule("aten.pixel_shuffle")
def _pixel_shuffle(call: Call) -> Axes:
    *lead, channel, row, column = call.first
    step = call["upscale_factor"]
    kept, down, across = call.factors.regroup(channel, (call.factors.size(channel) // step**2, step, step))
    call.factors.flag((*down, *across, *row, *column), "spatial")
    return (*lead, call.factors.leaves(kept), (*row, *down), (*column, *across))


@axis_rule("aten.pixel_unshuffle")
def _pixel_unshuffle(call: Call) -> Axes:
    *lead, channel, row, column = call.first
    step = call["downscale_factor"]
    call.factors.flag((*row, *column), "spatial")
    (rows, down), (columns, across) = (
        call.factors.regroup(axis, (call.factors.size(axis) // step, step)) for axis in (row, column)
    )
    return (*lead, (*call.factors.leaves(channel), *down, *across), rows, columns)


@axis_rule("aten.channel_shuffle", "aten.native_channel_shuffle")
def _channel_shuffle(call: Call) -> Axes:
    """The same channels in another order: an axis of its own, since entries of both do not line up."""
    lead, channel, *rest = call.first
    return (lead, call.factors.derive(call.factors.size(channel), [channel]), *rest)


@axis_rule("aten.im2col")
def _im2col(call: Call) -> Axes:
    """Patches: channels and taps in one axis, and places in another."""
    lead, channel, row, column = call.first
    call.factors.flag((*row, *column), "spatial")
    taps = call.fresh(call["kernel_size"], "spatial")
    places = call.fresh(call.shape[-1:], "spatial")[0]
    channels = call.shape[1] // prod(call["kernel_size"])
    assert call.factors.size(channel) == channels
    return (lead, (*channel, *taps[0], *taps[1]), places)
