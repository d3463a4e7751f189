"""The grouped exponential code on single numbers, straight from its equations."""

import bisect


def spikes_of(potential, step, weights):
    """One neuron's spikes, from its equations, on real potentials; weights must fall."""
    v, spikes = potential + step / 2, []
    for weight in weights:
        spikes.append(int(v >= step * weight))
        v -= step * weight * spikes[-1]
    return spikes


def nearest_entry(ratio, book):
    """The nearest entry, ties down."""
    place = bisect.bisect_left(book, ratio)
    if place == 0:
        return book[0]
    if place == len(book):
        return book[-1]
    return book[place] if book[place] - ratio < ratio - book[place - 1] else book[place - 1]
