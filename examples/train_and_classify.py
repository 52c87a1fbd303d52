"""Train the demo from Python, load what was saved, and classify a few digits. Takes under a minute.

python examples/train_and_classify.py [FOLDER FOR THE RESULTS]
"""

import sys

import numpy as np

import npattn
from npattn import data
from npattn.training import prepared

# 3 epochs on the 10,000 digits that come with the package; TrainConfig() alone is the full demo
config = npattn.TrainConfig(attention="cbam", epochs=3, seed=0, out=sys.argv[1] if len(sys.argv) > 1 else None)
result = npattn.train(config)
print(f"{result.accuracy:.2%} of the test digits are right; see {result.out}")

# The model from the disk, in eval mode, on digits that it has not seen
model = npattn.load_model(result.out)
digits = data.load()
with npattn.no_grad():
    scores = model(prepared(digits.test_images[:10]))
print("answers:", np.argmax(scores, axis=1).tolist())
print("right:  ", digits.test_labels[:10].tolist())

# What the attention did: a gate for every channel and for every pixel, by the name of the layer
for name, gate in model.attention.items():
    print(f"{name}: {gate.shape}, from {gate.min():.2f} to {gate.max():.2f}")
