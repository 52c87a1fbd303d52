"""huggingface/pytorch-image-models (timm 1.0), timm/layers: a file here for each there, found by itself.

What is its own: amax instead of max, so that tied maxima share a gradient evenly; hidden widths rounded to a multiple
of rd_divisor; batch norm between CBAM's spatial convolution and its gate; a "light" CBAM that averages mean and maximum
before anything else. Every class returns x · gate. Other activations than ReLU and SiLU, and a norm inside of SE, are
not spoken here and are refused.
"""

import importlib
import pkgutil

FIRST = ("se", "eca", "cbam")  # messages list the classes of these first, then those of the other files

for name in (*FIRST, *(found.name for found in pkgutil.iter_modules(__path__))):
    importlib.import_module(f"{__name__}.{name}")
