"""The way there and back under PyTorch: a module's state_dict in, a step of training in both, and still equal.

timm's own classes where timm is installed. The others are no packages: what is compared there are small modules written
here, with the keys of those codebases.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from npattn import dialects
from tests.support.numerical import distance

torch = pytest.importorskip("torch", reason="torch is not installed")
nn = torch.nn
WITHIN = 1e-12


def branch(**children: Any) -> Any:
    """A module that only holds others, under these names."""
    module = nn.Module()
    for name, child in children.items():
        module.add_module(name, child)
    return module


class Theirs(nn.Module):
    """Modules under the names of a codebase, and its forward."""

    def __init__(self, forward: Callable[[Any, Any], Any], **children: Any) -> None:
        super().__init__()
        self.forward = lambda x: forward(self, x)
        for name, child in children.items():
            self.add_module(name, child)


def double_attention() -> Theirs:
    """Both softmaxes over the descriptors, axis 1; a convolution at the end, and no sum."""

    def forward(self: Any, x: Any) -> Any:
        a, gather, distribute = (conv(x).flatten(2) for conv in (self.convA, self.convB, self.convV))
        z = a @ gather.softmax(1).mT @ distribute.softmax(1)
        return self.conv_reconstruct(z.unflatten(2, x.shape[2:]))

    widths = {"convA": (32, 5), "convB": (32, 6), "convV": (32, 6), "conv_reconstruct": (5, 32)}
    return Theirs(forward, **{name: nn.Conv2d(*width, 1) for name, width in widths.items()})


def mean_of(x: Any) -> Any:
    return x.mean((2, 3), keepdim=True)


def max_of(x: Any) -> Any:
    return nn.functional.adaptive_max_pool2d(x, 1)


def maps(x: Any, *order: str) -> Any:
    made = {"mean": x.mean(1, keepdim=True), "max": x.max(1, keepdim=True).values}
    return torch.cat([made[name] for name in order], 1)


def official() -> Theirs:
    """FCs with biases and four pools; [max, mean], batch norm of momentum 0.01."""

    def forward(self: Any, x: Any) -> Any:
        flat = x.flatten(2)
        pools = mean_of(x).flatten(1), max_of(x).flatten(1), flat.square().sum(2).sqrt(), flat.logsumexp(2)
        u = x * torch.sigmoid(sum(self.ChannelGate.mlp(s) for s in pools))[:, :, None, None]
        spatial = self.SpatialGate.spatial
        return u * torch.sigmoid(spatial.bn(spatial.conv(maps(u, "max", "mean"))))

    mlp = nn.Sequential(nn.Identity(), nn.Linear(32, 4), nn.ReLU(), nn.Linear(4, 32))
    spatial = branch(conv=nn.Conv2d(2, 1, 7, padding=3, bias=False), bn=nn.BatchNorm2d(1, momentum=0.01))
    return Theirs(forward, ChannelGate=branch(mlp=mlp), SpatialGate=branch(spatial=spatial))


def xmu() -> Theirs:
    """[max, mean], a bias in the convolution, and x added at the end."""

    def forward(self: Any, x: Any) -> Any:
        u = x * torch.sigmoid(self.ca.se(max_of(x)) + self.ca.se(mean_of(x)))
        return u * torch.sigmoid(self.sa.conv(maps(u, "max", "mean"))) + x

    se = nn.Sequential(nn.Conv2d(32, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 32, 1, bias=False))
    return Theirs(forward, ca=branch(se=se), sa=branch(conv=nn.Conv2d(2, 1, 5, padding=2)))


def ultralytics() -> Theirs:
    """One FC of the means."""

    def forward(self: Any, x: Any) -> Any:
        u = x * torch.sigmoid(self.channel_attention.fc(mean_of(x)))
        return u * torch.sigmoid(self.spatial_attention.cv1(maps(u, "mean", "max")))

    cv1 = nn.Conv2d(2, 1, 3, padding=1, bias=False)
    return Theirs(forward, channel_attention=branch(fc=nn.Conv2d(32, 32, 1)), spatial_attention=branch(cv1=cv1))


def timm_cbam() -> Theirs:
    """amax, which shares among ties; [mean, max], batch norm of momentum 0.1."""

    def forward(self: Any, x: Any) -> Any:
        channel, conv = self.channel, self.spatial.conv
        a = [channel.fc2(channel.fc1(s).relu()) for s in (mean_of(x), x.amax((2, 3), keepdim=True))]
        u = x * torch.sigmoid(a[0] + a[1])
        m = torch.cat([u.mean(1, keepdim=True), u.amax(1, keepdim=True)], 1)
        return u * torch.sigmoid(conv.bn(conv.conv(m)))

    channel = branch(fc1=nn.Conv2d(32, 2, 1, bias=False), fc2=nn.Conv2d(2, 32, 1, bias=False))
    conv = branch(conv=nn.Conv2d(2, 1, 7, padding=3, bias=False), bn=nn.BatchNorm2d(1))
    return Theirs(forward, channel=channel, spatial=branch(conv=conv))


def hard(divisor: float) -> Callable[[Any], Any]:
    """a / divisor + 1/2, cut at 0 and 1."""
    return lambda a: torch.clamp(a / divisor + 0.5, 0, 1)


def se(
    names: tuple[str, str], act: Callable[[Any], Any], gate: Callable[[Any], Any], hidden: int, linear: bool = False
) -> Theirs:
    """Two FC with biases under these names, which may be paths."""

    def forward(self: Any, x: Any) -> Any:
        first, second = (self.get_submodule(name) for name in names)
        s = mean_of(x).flatten(1) if linear else mean_of(x)
        g = gate(second(act(first(s))))
        return x * (g[:, :, None, None] if linear else g)

    made = (
        (nn.Linear(32, hidden), nn.Linear(hidden, 32))
        if linear
        else (nn.Conv2d(32, hidden, 1), nn.Conv2d(hidden, 32, 1))
    )
    children: dict[str, Any] = {}
    for name, layer in zip(names, made, strict=True):
        top, _, rest = name.partition(".")
        if rest:
            children.setdefault(top, nn.Module()).add_module(rest, layer)
        else:
            children[name] = layer
    return Theirs(forward, **children)


F = nn.functional
SILU_AND_SIGMOID = {"act_cfg": ({"type": "Swish"}, {"type": "Sigmoid"})}
RELU_AND_HARD = {"act_cfg": ({"type": "ReLU"}, {"type": "HSigmoid", "bias": 3.0, "divisor": 6.0})}
MM, PADDLE, FC = ("conv1.conv", "conv2.conv"), ("conv1", "conv2"), ("fc.0", "fc.2")
SE_CASES = [  # as the code of each codebase reads
    ("torchvision", "SqueezeExcitation", lambda: se(("fc1", "fc2"), F.silu, torch.sigmoid, 8),
     {"input_channels": 32, "squeeze_channels": 8, "activation": "SiLU"}),
    ("torchvision", "SqueezeExcitation", lambda: se(("fc1", "fc2"), F.relu, F.hardsigmoid, 8),
     {"input_channels": 32, "squeeze_channels": 8, "scale_activation": "Hardsigmoid"}),
    ("mmpretrain", "SELayer", lambda: se(MM, F.relu, torch.sigmoid, 8), {"channels": 32}),
    ("mmpretrain", "SELayer", lambda: se(MM, F.silu, torch.sigmoid, 5),
     {"channels": 32, "squeeze_channels": 5, **SILU_AND_SIGMOID}),
    ("mmpretrain", "SELayer", lambda: se(MM, F.relu, hard(6), 8), {"channels": 32, "ratio": 4, **RELU_AND_HARD}),
    ("paddleclas", "SEModule", lambda: se(PADDLE, F.relu, hard(1 / 0.1666667), 8), {"channel": 32}),
    ("paddleclas", "SEModule", lambda: se(PADDLE, F.relu, hard(5), 8), {"channel": 32, "slope": 0.2}),
    ("lukemelas", "SE", lambda: se(("_se_reduce", "_se_expand"), F.silu, torch.sigmoid, 4),
     {"channels": 32, "squeezed": 4}),
    ("ghostnet", "SqueezeExcite", lambda: se(("conv_reduce", "conv_expand"), F.relu, hard(6), 8), {"in_chs": 32}),
    ("timm", "SqueezeExcite", lambda: se(("conv_reduce", "conv_expand"), F.silu, torch.sigmoid, 3),
     {"in_chs": 32, "rd_channels": 3, "act_layer": "silu"}),
    ("dli14", "SELayer", lambda: se(FC, F.relu, hard(6), 8, linear=True), {"channel": 32}),
    ("dli14", "SELayerV2", lambda: se(FC, F.silu, torch.sigmoid, 8, linear=True), {"inp": 32, "oup": 32}),
    ("moskomule", "SELayer", lambda: se(FC, F.relu, torch.sigmoid, 6, linear=True), {"channel": 32, "reduction": 6}),
]  # fmt: skip


def timm(name: str, **args: Any) -> Any:
    module = {
        "SEModule": "squeeze_excite", "EffectiveSEModule": "squeeze_excite", "EcaModule": "eca",
        "CoordAttn": "coord_attn", "SimpleCoordAttn": "coord_attn", "GlobalContext": "global_context",
        "EfficientLocalAttn": "coord_attn", "StripAttn": "coord_attn",
    }.get(name, "cbam")  # fmt: skip
    layers = pytest.importorskip(f"timm.layers.{module}", reason="timm is not installed", exc_type=ImportError)
    return getattr(layers, name)(32, **args)


ALL_POOLS = {"gate_channels": 32, "reduction_ratio": 8, "pool_types": ["avg", "max", "lp", "lse"]}
CASES = (
    [
        ("official", "CBAM", official, ALL_POOLS),
        ("xmu", "CBAMBlock", xmu, {"channel": 32, "reduction": 8, "kernel_size": 5}),
        ("xmu", "DoubleAttention", double_attention, {"in_channels": 32, "c_m": 5, "c_n": 6}),
        ("timm", "CbamModule", timm_cbam, {"channels": 32}),
        ("ultralytics", "CBAM", ultralytics, {"c1": 32, "kernel_size": 3}),
    ]
    + [
        ("timm", name, lambda name=name, args=args: timm(name, **args), {"channels": 32} | args)
        for name, args in [
            ("SEModule", {}),
            ("SEModule", {"rd_ratio": 0.7, "rd_divisor": 6, "add_maxpool": True, "gate_layer": "hard_sigmoid"}),
            ("EffectiveSEModule", {"add_maxpool": True}),
            ("EffectiveSEModule", {"gate_layer": "sigmoid"}),
            ("EcaModule", {"gamma": 0.5, "gate_layer": "hard_sigmoid"}),
            ("CbamModule", {"rd_channels": 3, "spatial_kernel_size": 5, "mlp_bias": True}),
            ("CbamModule", {"gate_layer": "hard_sigmoid"}),
            ("CoordAttn", {"rd_channels": 5}),
            ("SimpleCoordAttn", {"rd_channels": 5, "bias": False}),
            ("EfficientLocalAttn", {}),
            ("EfficientLocalAttn", {"kernel_size": 3}),
            ("SimpleCoordAttn", {"rd_ratio": 0.3, "rd_divisor": 3, "se_factor": 0.7}),
            ("StripAttn", {"kernel_size": 5, "bias": True}),
            ("CoordAttn", {"rd_ratio": 0.3, "rd_divisor": 3, "se_factor": 0.7}),
            ("GlobalContext", {"fuse_add": True, "rd_channels": 5}),
            ("GlobalContext", {"fuse_add": True, "use_attn": False, "rd_ratio": 0.3, "rd_divisor": 3}),
            ("LightCbamModule", {"rd_ratio": 0.2, "gate_layer": "hard_sigmoid", "mlp_bias": True}),
        ]
    ]
    + SE_CASES
)


@pytest.mark.parametrize("ties", [False, True], ids=["", "ties"])
@pytest.mark.parametrize(
    ("dialect", "name", "make", "args"), CASES, ids=lambda part: "" if callable(part) else str(part)
)
def test_train_a_step_in_both(dialect: str, name: str, make: Callable[[], Any], args: dict[str, Any], ties: bool):
    torch.manual_seed(5)
    theirs = make().double()
    ours = dialects.load(dialect, name, theirs.state_dict(), **args)
    rng = np.random.default_rng(6)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05)  # small, so that no weight is cut to nearly 0
    for _ in range(2):  # the second step starts from where the first one went
        x = rng.standard_normal((3, 32, 6, 5))
        if ties:
            x = np.maximum(rng.integers(-2, 3, x.shape), 0).astype(np.float64)
            x[:, :, 2, 3] = 0  # a pixel where all channels tie
        dy = rng.standard_normal(x.shape)
        leaf = torch.tensor(x, requires_grad=True)
        optimizer.zero_grad()
        y = theirs(leaf)
        y.backward(torch.tensor(dy))
        optimizer.step()

        assert distance(ours(x), y.detach().numpy()) < WITHIN
        assert distance(ours.backward(dy), leaf.grad.numpy()) < WITHIN
        wanted = {key: weight.grad.numpy() for key, weight in theirs.named_parameters()}
        assert list(ours.grads) == list(wanted)
        largest = max(float(np.linalg.norm(gradient)) for gradient in wanted.values())
        for key, gradient in ours.grads.items():
            off = np.linalg.norm(
                gradient - wanted[key]
            )  # of a bias before a softmax there is rounding, and nothing else
            assert off <= WITHIN * np.linalg.norm(wanted[key]) + 1e-15 * largest, key
            ours.params[key] = ours.params[key] - 0.05 * gradient
        state, wanted = dialects.dump(ours), theirs.state_dict()
        assert list(state) == list(wanted)
        for key, value in wanted.items():
            assert state[key].dtype == value.numpy().dtype
            assert distance(state[key], value.numpy()) < WITHIN, key
    # and back: PyTorch takes what we dump
    theirs.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    theirs.eval(), ours.eval()
    assert distance(ours(x), theirs(torch.tensor(x)).detach().numpy()) < WITHIN


def test_timms_widths():
    """The rounding of the hidden width, for every number of channels."""
    helpers = pytest.importorskip("timm.layers.helpers", reason="timm is not installed", exc_type=ImportError)
    eca = pytest.importorskip("timm.layers.eca", reason="timm is not installed", exc_type=ImportError)
    from npattn.dialects.timm.eca import eca_kernel
    from npattn.dialects.timm.rules import divisible

    for ratio in (1 / 16, 0.25, 0.3, 1 / 24):
        for divisor in (1, 2, 7, 8):
            for C in range(1, 520):
                wanted = helpers.make_divisible(C * ratio, divisor, round_limit=0.0)
                assert divisible(C * ratio, divisor) == wanted, (C, ratio, divisor)
    for C in (1, 2, 3, 16, 31, 32, 63, 64, 100, 512, 2048):
        for gamma, beta in ((2, 1), (1, 0), (0.7, 3), (2, -8)):
            assert (eca_kernel(C, gamma, beta),) == eca.EcaModule(C, gamma=gamma, beta=beta).conv.kernel_size


def test_a_tensor_that_needs_gradients_can_be_loaded():
    module = ultralytics().double()
    weights = dict(module.named_parameters())
    layer = dialects.load("ultralytics", "CBAM", weights, c1=32, kernel_size=3)
    assert isinstance(dialects.dump(layer)["channel_attention.fc.bias"], np.ndarray)
