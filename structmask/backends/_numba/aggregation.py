"""Aggregates of a graph, nodes that are strongly joined, and the graph between them."""

from __future__ import annotations

import numpy as np
from numba import njit

compiled = njit(nogil=True, cache=True)

_STRONG = 0.25  # of a node's largest weight


@compiled
def aggregates(indptr, indices, data):
    """Labels (n,) of the aggregates of a symmetric graph, and their number.

    A node becomes an aggregate with its strong neighbours if none of them is taken; what is left joins the aggregate of
    its heaviest neighbour in one, or stays alone. So each aggregate has a centre, and no two centres are strongly
    joined.
    """
    n = indptr.size - 1
    labels, count = np.full(n, -1, np.int32), 0
    for i in range(n):
        if labels[i] >= 0:
            continue
        least, is_free = _least(i, indptr, data), True
        for e in range(indptr[i], indptr[i + 1]):
            is_free = is_free and (data[e] < least or labels[indices[e]] < 0)
        if is_free:
            labels[i] = count
            for e in range(indptr[i], indptr[i + 1]):
                if data[e] >= least:
                    labels[indices[e]] = count
            count += 1
    centred = labels.copy()
    for i in range(n):
        if labels[i] < 0:
            labels[i] = _heaviest(i, indptr, indices, data, centred)
        if labels[i] < 0:
            labels[i], count = count, count + 1
    return labels, count


@compiled
def _least(i, indptr, data):
    """The smallest weight that is strong at a node."""
    largest = 0.0
    for e in range(indptr[i], indptr[i + 1]):
        largest = max(largest, data[e])
    return _STRONG * largest


@compiled
def _heaviest(i, indptr, indices, data, labels):
    """The label of the heaviest neighbour that has one; -1 where none has."""
    largest, label = 0.0, -1
    for e in range(indptr[i], indptr[i + 1]):
        if labels[indices[e]] >= 0 and data[e] > largest:
            largest, label = data[e], labels[indices[e]]
    return label


@compiled
def collapsed(indptr, indices, data, labels, count):
    """CSR arrays of the weights between aggregates, those inside left out."""
    n = labels.size
    begin, members = np.zeros(count + 1, np.int64), np.empty(n, np.int32)
    for i in range(n):
        begin[labels[i] + 1] += 1
    for c in range(count):
        begin[c + 1] += begin[c]
    free = begin[:-1].copy()
    for i in range(n):
        members[free[labels[i]]] = i
        free[labels[i]] += 1
    place, ends = np.full(count, -1, np.int64), np.zeros(count + 1, np.int64)
    columns, weights, used = np.empty(indices.size, np.int32), np.empty(indices.size), 0
    for c in range(count):
        first = used
        for k in range(begin[c], begin[c + 1]):
            i = members[k]
            for e in range(indptr[i], indptr[i + 1]):
                other = labels[indices[e]]
                if other == c:
                    continue
                if place[other] < first:
                    place[other], columns[used], weights[used] = used, other, data[e]
                    used += 1
                else:
                    weights[place[other]] += data[e]
        ends[c + 1] = used
    return ends, columns[:used].copy(), weights[:used].copy()
