"""huggingface/pytorch-image-models (timm 1.0), timm/layers: a file here for each there, found by itself.

What is its own: amax instead of max, so that tied maxima share a gradient evenly; hidden widths rounded to a multiple
of rd_divisor; batch norm between CBAM's spatial convolution and its gate; a "light" CBAM that averages mean and maximum
before anything else. Every class returns x · gate. Other activations than ReLU and SiLU, and a norm inside of SE, are
not spoken here and are refused.
"""

import importlib
import pkgutil

# messages list the classes of these three first, in this order, and then those of the other files
from npattn.dialects.timm import se  # noqa: F401

# isort: split
from npattn.dialects.timm import eca  # noqa: F401

# isort: split
from npattn.dialects.timm import cbam  # noqa: F401

for found in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{found.name}")
