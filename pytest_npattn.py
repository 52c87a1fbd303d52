"""A fixture for pytest: `gradcheck`, which fails a test whose backward is not the derivative of its forward.

It comes with npattn and needs no option. It stands beside the package, since pytest loads it at every start, and
importing the package takes as long as importing NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from npattn.checker.helpers import AssertRight


@pytest.fixture
def gradcheck() -> AssertRight[Any]:
    """`npattn.gradcheck.assert_right`: call it with a layer and its inputs; the failure's text is the report.

    def test_my_layer(gradcheck):
        gradcheck(MyLayer(3, 2), np.ones((4, 3)))
    """
    import npattn

    return npattn.gradcheck.assert_right
