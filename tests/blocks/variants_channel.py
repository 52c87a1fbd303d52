"""Channel attention with options, docs/variants.md."""

from __future__ import annotations

import math
from itertools import product

import numpy as np

from npattn.ops import global_avg_pool, linear, relu
from npattn.variants import channel
from npattn.variants.channel import Settings
from tests.support.by_index import ACT, ACT_SLOPE, GATE, filled, first_pixel, random, same
from tests.support.mistakes import image, mistake
from tests.support.torch_gates import gate_function, pool

MORE = (
    {"gate": "torch_hard_sigmoid"},
    {"gate": "hard_sigmoid_5", "act": "silu"},
    {"gate": "paddle_hard_sigmoid", "pools": ("avg",)},
    {"hidden": 5, "bias": True, "pools": ("lse", "max", "avg"), "max_tie": "even"},
    {"layers": 1, "mix": "before", "pools": ("max", "lp")},
    {"act": "silu", "bias": True, "gate": "hard_sigmoid"},
)


def reference(x, w, hidden=None, bias=False, pools=("avg", "max"), mix="after", layers=2, gate="sigmoid",
              max_tie="first", act="relu"):  # fmt: skip
    import torch.nn.functional as F

    def mlp(s):
        z = F.conv2d(s[..., None, None], w["fc1.weight"], w.get("fc1.bias"))
        return F.conv2d(getattr(F, act)(z), w["fc2.weight"], w.get("fc2.bias")) if layers == 2 else z

    assert {"fc1.bias": bias, "fc2.weight": layers == 2}.items() <= {key: key in w for key in ALL}.items()
    s = [pool(name, max_tie, x) for name in pools]
    read = [sum(s) / len(s)] if mix == "before" else s
    return gate_function(gate)(sum(mlp(t) for t in read))


ALL = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")


def by_index(x, params, settings, dg=None):
    """The channel gate as docs/variants.md has it. Returns g, or dx and the gradients for a cotangent dg (N, C)."""
    N, C, H, W = x.shape
    P = H * W
    xp = x.reshape(N, C, P)
    first = first_pixel(xp)
    w1, b1, w2, b2 = params
    M, no_bias = len(w1), np.zeros(max(len(w1), C))
    pooled = {
        "avg": filled((N, C), lambda n, c: sum(xp[n, c, p] for p in range(P)) / P),
        "max": filled((N, C), lambda n, c: max(xp[n, c, p] for p in range(P))),
        "lp": filled((N, C), lambda n, c: math.sqrt(sum(xp[n, c, p] ** 2 for p in range(P)))),
        "lse": filled((N, C), lambda n, c: math.log(sum(math.exp(xp[n, c, p]) for p in range(P)))),
    }
    slopes = {
        "avg": lambda n, c, p: 1 / P,
        "max": lambda n, c, p: 1 if p == first[n, c] else 0,
        "lp": lambda n, c, p: xp[n, c, p] / pooled["lp"][n, c],
        "lse": lambda n, c, p: math.exp(xp[n, c, p]) / sum(math.exp(xp[n, c, j]) for j in range(P)),
    }
    count = len(settings.pools)
    s = [pooled[name] for name in settings.pools]
    t = [filled((N, C), lambda n, c: sum(one[n, c] for one in s) / count)] if settings.mix == "before" else s
    b1, b2 = no_bias if b1 is None else b1, no_bias if b2 is None else b2
    z = [filled((N, M), lambda n, r, t_j=t_j: sum(t_j[n, m] * w1[r, m] for m in range(C)) + b1[r]) for t_j in t]
    h = [filled((N, M), lambda n, r, z_j=z_j: ACT[settings.act](z_j[n, r])) for z_j in z]
    runs = z
    if w2 is not None:
        runs = [filled((N, C), lambda n, c, h_j=h_j: sum(h_j[n, r] * w2[c, r] for r in range(M)) + b2[c]) for h_j in h]
    a = filled((N, C), lambda n, c: sum(run[n, c] for run in runs))
    g = filled((N, C), lambda n, c: GATE[settings.gate](a[n, c]))
    if dg is None:
        return g

    slope = {"sigmoid": lambda u: u * (1 - u), "hard_sigmoid": lambda u: 1 / 6 if 0 < u < 1 else 0}[settings.gate]
    da = filled((N, C), lambda n, c: dg[n, c] * slope(g[n, c]))  # VCA.5; by VCA.4 each run receives all of it
    dw1, db1, dw2, db2, dt = np.zeros((M, C)), np.zeros(M), np.zeros((C, M)), np.zeros(C), []
    for t_j, z_j, h_j in zip(t, z, h, strict=True):  # VCA.3, by VMLP.3 to VMLP.1; the gradients of the runs add
        dz = da
        if w2 is not None:
            dw2 += filled((C, M), lambda c, r, h_j=h_j: sum(da[n, c] * h_j[n, r] for n in range(N)))
            db2 += filled((C,), lambda c: sum(da[n, c] for n in range(N)))
            dh = filled((N, M), lambda n, r: sum(da[n, c] * w2[c, r] for c in range(C)))
            dz = filled((N, M), lambda n, r, z_j=z_j, dh=dh: dh[n, r] * ACT_SLOPE[settings.act](z_j[n, r]))
        dw1 += filled((M, C), lambda r, c, t_j=t_j, dz=dz: sum(dz[n, r] * t_j[n, c] for n in range(N)))
        db1 += filled((M,), lambda r, dz=dz: sum(dz[n, r] for n in range(N)))
        dt.append(filled((N, C), lambda n, c, dz=dz: sum(dz[n, r] * w1[r, c] for r in range(M))))
    ds = [dt[0] / count] * count if settings.mix == "before" else dt  # VCA.2
    of_pool = list(zip(settings.pools, ds, strict=True))
    dx = filled((N, C, P), lambda n, c, p: sum(ds_i[n, c] * slopes[name](n, c, p) for name, ds_i in of_pool))  # VCA.1
    return dx.reshape(x.shape), channel.Params(dw1, db1, dw2, db2)


def agree(found, wanted, what):
    """The gradients of the parameters that there are."""
    for name, one in found._asdict().items():
        if one is not None:
            same(one, getattr(wanted, name), f"{what}, d{name}")


def derivation():
    x = random(2, 3, 2, 4, seed=6)
    _, C, _, _ = x.shape
    R = 2
    pools = [("lse", "avg"), ("max", "lp", "avg")]
    for number, (names, mix, layers, gate) in enumerate(product(pools, ("after", "before"), (1, 2), GATE)):
        act = ("relu", "silu")[number // 2 % 2]
        rng = np.random.default_rng(number)
        M = R if layers == 2 else C
        w1, b1 = rng.standard_normal((M, C)), rng.standard_normal(M)
        w2, b2 = (rng.standard_normal((C, R)), rng.standard_normal(C)) if layers == 2 else (None, None)
        params, settings = channel.Params(w1, b1, w2, b2), Settings(names, mix, gate, act=act)
        g, cache = channel.forward(x, params, settings)
        same(g[:, :, 0, 0], by_index(x, params, settings), f"VCA.5, {settings}")
        dg = rng.standard_normal(g.shape)
        dx, grads = channel.backward(dg, cache)
        dx_, grads_ = by_index(x, params, settings, dg[:, :, 0, 0])
        same(dx, dx_, f"VCA.1, {settings}")
        agree(grads, grads_, f"VCA.3, {settings}")


def formed(**settings):
    """The forward with these settings."""

    def forward(x, params):
        return channel.forward(x, params, Settings(**settings))

    return forward


def inputs(rng):
    b1, b2 = rng.standard_normal(3), rng.standard_normal(4)
    return image(rng), channel.Params(rng.standard_normal((3, 4)), b1, rng.standard_normal((4, 3)), b2)


@mistake(formed(), inputs, "params.b2", "a constant factor of 0.5")
def bias_counted_once_in_two_runs(dy, cache):
    dx, grads = channel.backward(dy, cache)
    return dx, grads._replace(b2=grads.b2 / 2)


@mistake(formed(mix="before"), inputs, "x", "a constant factor of 2")
def mean_of_descriptors_that_gives_each_all(dy, cache):
    after = cache._replace(settings=cache.settings._replace(mix="after"), runs=cache.runs * 2)
    dx, _ = channel.backward(dy, after)
    return dx, channel.backward(dy, cache)[1]


@mistake(formed(pools=("avg", "max")), inputs, "x")
def pools_taken_back_in_the_other_order(dy, cache):
    settings = cache.settings._replace(pools=cache.settings.pools[::-1])
    dx, _ = channel.backward(dy, cache._replace(settings=settings, pools=cache.pools[::-1]))
    return dx, channel.backward(dy, cache)[1]


@mistake(formed(act="silu"), inputs, "params.w1")
def silu_taken_for_a_gate_that_is_given(dy, cache):
    runs = tuple(run._replace(hidden=run.hidden._replace(x=0 * run.hidden.x)) for run in cache.runs)
    return channel.backward(dy, cache)[0], channel.backward(dy, cache._replace(runs=runs))[1]


@mistake(formed(act="silu"), inputs, "x")
def silu_undone_as_a_relu(dy, cache):
    blocked = tuple(run._replace(hidden=relu.forward(run.hidden.x)[1]) for run in cache.runs)
    as_relu = cache._replace(settings=cache.settings._replace(act="relu"), runs=blocked)
    return channel.backward(dy, as_relu)[0], channel.backward(dy, cache)[1]


@mistake(formed(gate="hard_sigmoid"), lambda rng: (4 * image(rng), inputs(rng)[1]), "params.b2")
def hard_gate_with_the_slope_of_a_soft_one(dy, cache):
    dx, _ = channel.backward(dy, cache)
    da = dy[:, :, 0, 0] * cache.g * (1 - cache.g)
    return dx, channel.Params(*map(sum_of, *(channel.mlp_backward(da, run)[1] for run in cache.runs)))


def sum_of(one, other):
    return one + other


def only_one_fc(rng):
    return image(rng), channel.Params(rng.standard_normal((4, 4)), rng.standard_normal(4))


@mistake(formed(pools=("avg",)), only_one_fc, "x", "the same along axes (2, 3)")
def one_fc_undone_with_its_matrix_turned(dy, cache):
    _, grads = channel.backward(dy, cache)
    (run,) = cache.runs
    da = dy[:, :, 0, 0] * cache.g * (1 - cache.g)
    turned = run.fc1._replace(params=linear.Params(run.fc1.params.w.T, run.fc1.params.b))
    return global_avg_pool.backward(linear.backward(da, turned)[0], cache.pools[0]), grads
