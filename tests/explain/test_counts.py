"""Parameters counted from stage widths: by the layers and by formulas written out again."""

from __future__ import annotations

import math

import pytest

from npattn import cli
from npattn.blocks import blocks
from npattn.explain.counts import NETWORKS, added

COUNTED = (
    "se", "se-bias", "se-r2", "channel", "concat", "spatial", "spatial-k3", "cbam", "cbam-spatial-first",
    "cbam-official", "eca", "conv-gate", "squeeze", "psa", "se-parallel",
)  # fmt: skip


def by_formula(block: str, C: int, r: int, k: int, side: int) -> int:
    """Written out by hand once more: the two FC, their biases, the kernel, batch norm's two numbers."""
    R = C // r
    fc, bias, kernel = 2 * C * R, R + C, 2 * k * k
    neighbours = int((math.log2(C) + 1) / 2)  # ECA's rule, for as many channels as these
    return {
        "se": fc,
        "se-bias": fc + bias,
        "se-r2": 2 * C * (C // 2),
        "channel": fc,
        "concat": 3 * C * R,
        "spatial": kernel,
        "spatial-k3": 2 * 3 * 3,
        "cbam": fc + kernel,
        "cbam-spatial-first": fc + kernel,
        "cbam-official": fc + bias + kernel + 2,
        "eca": neighbours + (neighbours % 2 == 0),
        "conv-gate": C * C * 3 * 3,
        "squeeze": 0,
        "psa": 2 * C * (2 * side - 1) ** 2 + 3 * C * C,  # a row for each way from a pixel to another, twice
        "se-parallel": fc + C * C * 3 * 3 + C,
    }[block]


@pytest.mark.parametrize("block", COUNTED)
@pytest.mark.parametrize(("network", "ratio", "k"), [("resnet50", 16, 7), ("resnet18", 8, 3)])
def test_by_formula(block: str, network: str, ratio: int, k: int):
    sides = (56, 28, 14, 7)  # of 224 × 224 pixels: a quarter, and each further stage half as large
    stages = NETWORKS[network].stages
    wanted = sum(n * by_formula(block, C, ratio, k, side) for (C, n), side in zip(stages, sides, strict=True))
    assert added(block, network, ratio, k) == wanted


def test_what_the_papers_and_their_code_say():
    assert added("se") == 2_514_944
    assert added("se-bias") == 2_530_992
    assert added("cbam-official") == 2_532_592
    whole = NETWORKS["resnet50"].parameters
    assert whole is not None
    # Woo et al. 2018, table 4: 25.56 million, and 28.09 million with SE and with CBAM
    assert f"{whole / 1e6:.2f}" == "25.56"
    assert f"{(whole + added('se-bias')) / 1e6:.2f}" == "28.09"
    assert f"{(whole + added('cbam-official')) / 1e6:.2f}" == "28.09"


def resnet(stages, bottleneck: bool) -> int:
    """A ResNet's parameters, counted by hand: He et al. 2016, table 1."""

    def conv(C, M, k):
        return C * M * k * k + 2 * M  # with the batch norm behind it

    total, inputs = conv(3, 64, 7), 64
    for outputs, count in stages:
        for block in range(count):
            C = inputs if block == 0 else outputs
            mid = outputs // 4
            total += (
                conv(C, mid, 1) + conv(mid, mid, 3) + conv(mid, outputs, 1)
                if bottleneck
                else conv(C, outputs, 3) + conv(outputs, outputs, 3)
            )
            total += conv(C, outputs, 1) if outputs != C else 0
        inputs = outputs
    return total + inputs * 1000 + 1000


@pytest.mark.parametrize("name", NETWORKS)
def test_the_networks_own_parameters(name: str):
    stages, parameters = NETWORKS[name]
    assert parameters == resnet(stages, bottleneck=name not in ("resnet18", "resnet34"))


def test_the_command(capsys):
    assert cli.main(["count"]) == 0
    printed = capsys.readouterr().out
    for number in ("25,557,032", "2,514,944", "2,530,992", "2,532,592"):
        assert number in printed
    assert cli.main(["count", "--stages", "8x1", "16x2", "--ratio", "4", "--kernel-size", "3"]) == 0
    rows = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines()[2:])
    assert int(rows["se"].replace(",", "")) == 2 * 8 * 2 + 2 * (2 * 16 * 4)
    assert list(rows) == list(blocks())
    for block, number in rows.items():
        assert int(number.replace(",", "")) == added(block, [(8, 1), (16, 2)], 4, 3), block
    with pytest.raises(SystemExit, match="2"):
        cli.main(["count", "--stages", "8by1"])
    assert "--stages: expected a shape, two whole numbers from 1" in capsys.readouterr().err
    assert cli.main(["count", "--ratio", "1000"]) == 2
    assert "npattn: --ratio: expected at most" in capsys.readouterr().err


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"block: expected one of .*'cbam', .* got 'SEE'; did you mean se\?"):
        added("SEE")
    with pytest.raises(ValueError, match=r"stages: expected .* got 'resnet51'"):
        added("se", "resnet51")
    with pytest.raises(ValueError, match=r"stages \(blocks\): expected a whole number of at least 1, got 0"):
        added("se", [(32, 0)])
