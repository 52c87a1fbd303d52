"""Gates as maps: of pixels as they are, of rows and columns multiplied."""

from __future__ import annotations

import numpy as np

import npattn
from npattn.explain.gate_maps import channel_bars, gate_maps

X = np.random.default_rng(0).standard_normal((2, 8, 5, 4)).astype(np.float32)


def test_a_spatial_gate_is_its_own_map():
    layer = npattn.CBAM(8, 2, 3, rng=0)
    layer(X)
    gates = {f"stage2.{name}": gate for name, gate in layer.attention.items()}
    np.testing.assert_array_equal(gate_maps(gates)["stage2.spatial"], layer.attention["spatial"][:, 0])
    assert list(gate_maps(gates)) == ["stage2.spatial"]
    np.testing.assert_array_equal(channel_bars(gates)["stage2.channel"], layer.attention["channel"][:, :, 0, 0])
    assert list(channel_bars(gates)) == ["stage2.channel"]


def test_rows_and_columns_make_one_map():
    layer = npattn.CoordinateAttention(8, 2, rng=0)
    layer(X)
    (name, found), *more = gate_maps({f"a.{key}": gate for key, gate in layer.attention.items()}).items()
    assert (name, more) == ("a.rows × columns", [])
    rows, columns = (layer.attention[key].mean(axis=1) for key in ("rows", "columns"))
    np.testing.assert_allclose(found, rows * columns)
    assert found.shape == (2, 5, 4)
    assert channel_bars(layer.attention) == {}


def test_a_number_for_every_pixel_of_every_channel_is_no_map():
    layer = npattn.ConvGate(8, rng=0)
    layer(X)
    assert gate_maps(layer.attention) == channel_bars(layer.attention) == {}
