"""What the page "Look inside" asks of Python: a block at two channels of 5×5, its gates, its dx by ways."""

import json

import numpy as np

from npattn import gradcheck
from npattn.attention import cbam, channel, se, spatial
from npattn.checker.report import HEAD

SHAPE = (1, 2, 5, 5)
UNITS = 2  # hidden units of the bottleneck


def squeezed(seed):
    """SE's parameters for that seed."""
    rng = np.random.default_rng(seed)
    return se.Params(rng.standard_normal((UNITS, 2)), rng.standard_normal((2, UNITS)))


def refined(seed):
    """CBAM's parameters for that seed; the kernel is 3×3."""
    rng = np.random.default_rng(seed)
    gate = channel.Params(rng.standard_normal((UNITS, 2)), rng.standard_normal((2, UNITS)))
    return cbam.Params(gate, spatial.Params(rng.standard_normal((1, 2, 3, 3))))


def ways_of_se(dy, cache):
    """SE's dx, as the two ways on which x reaches y."""
    dx, _ = se.backward(dy, cache)
    direct = dy * cache.g[:, :, None, None]
    return {"straight": direct, "through the gate": dx - direct}


def ways_of_cbam(dy, cache):
    """CBAM's dx, as the four ways on which x reaches y."""
    straight = dy * cache.g_s
    by_gate, _ = spatial.backward(np.sum(dy * cache.u, axis=1, keepdims=True), cache.sa)

    def through_channel_gate(du):
        return channel.backward(np.sum(du * cache.x, axis=(2, 3), keepdims=True), cache.ca)[0]

    return {
        "straight": straight * cache.g_c,
        "through the spatial gate": by_gate * cache.g_c,
        "through the channel gate": through_channel_gate(straight),
        "through both gates": through_channel_gate(by_gate),
    }


BLOCKS = {"se": (se, squeezed, ways_of_se), "cbam": (cbam, refined, ways_of_cbam)}


def hidden(block, x, params):
    """The bottleneck's hidden units before their ReLU, for each descriptor."""
    w1 = params.w1 if block == "se" else params.ca.w1
    found = {"of the mean": np.mean(x, axis=(2, 3)) @ w1.T}
    if block == "cbam":
        found["of the maximum"] = np.max(x, axis=(2, 3)) @ w1.T
    return {name: z[0].tolist() for name, z in found.items()}


def parts(block, off):
    """The pair with a backward that leaves out those ways of dx."""
    module, _, ways = BLOCKS[block]

    def backward(dy, cache):
        kept = [way for name, way in ways(dy, cache).items() if name not in off]
        return sum(kept, np.zeros(dy.shape)), module.backward(dy, cache)[1]

    return module.forward, backward


def arrays(x, dy):
    """Both as arrays, from JSON of 50 numbers each."""
    return tuple(np.array(json.loads(text), float).reshape(SHAPE) for text in (x, dy))


def look(block, seed, x, dy, off):
    """Everything that is drawn, as JSON. x and dy are 50 numbers each as JSON, off the names of ways switched off."""
    x, dy = arrays(x, dy)
    params = BLOCKS[block][1](seed)
    forward, backward = parts(block, json.loads(off))
    y, cache = forward(x, params)
    gates = {"channel gate": cache.g if block == "se" else cache.g_c}
    if block == "cbam":
        gates["spatial gate"] = cache.g_s
    maps = {"y": y, "dx": backward(dy, cache)[0]}
    return json.dumps(
        {
            "gates": {name: gate.ravel().tolist() for name, gate in gates.items()},
            "maps": {name: value.ravel().tolist() for name, value in maps.items()},
            "ways": list(BLOCKS[block][2](dy, cache)),
            "hidden": hidden(block, x, params),
        }
    )


def look_check(block, seed, x, dy, off):
    """The gradient check at this x alone, as JSON: what it sees, and what it cannot see here."""
    x, _ = arrays(x, dy)
    report = gradcheck(parts(block, json.loads(off)), x, BLOCKS[block][1](seed), points=1, raise_exception=False)
    trial = "the check, at this x alone"
    rows = [
        {"trial": trial, "cells": cells, "wrong": row.wrong, "cause": row.cause, "passed": row.verdict == "ok"}
        for row, cells in zip(report.rows, report.cells(), strict=True)
    ]
    seen = {True: "every gradient is right", False: "not right"}[report.passed]
    told = f"{seen}, but part of it cannot be seen at this x" if report.untested and report.passed else seen
    found = {"summary": told, "solved": report.status == 0, "rows": rows, "problems": report.untested, "head": HEAD}
    return json.dumps(found)
