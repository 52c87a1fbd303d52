"""What the page "Draw a digit" asks of Python: the demo's network on what was drawn."""

import json

import numpy as np

from npattn import models, no_grad
from npattn.explain.cam import class_activation_map
from npattn.explain.images import centred

WEIGHTS = "/digits.npz"
NETWORK = None


def network():
    """The demo's network with the weights that `npattn train` gives, in eval mode."""
    global NETWORK
    if NETWORK is None:
        NETWORK = models.digits().load(WEIGHTS).eval()
    return NETWORK


def draw(strokes):
    """Scores and maps, as JSON, for a drawing: rows of 0 to 255 that just hold it, the longer side 20."""
    from npattn.training.batches import prepared

    image = centred(np.array(json.loads(strokes), float))
    x, net = prepared(image[None]), network()
    with no_grad():
        z = np.asarray(net.forward(x)[0], float)
    p = np.exp(z - z.max())
    p /= p.sum()
    best = np.argsort(-p)[:2]
    gates = {name: gate[0] for name, gate in net.attention.items()}
    spatial = {name: gate[0] for name, gate in gates.items() if gate.shape[0] == 1}
    channel = {name: gate[:, 0, 0] for name, gate in gates.items() if gate.shape[0] > 1}
    maps = class_activation_map(net, np.repeat(x, 2, axis=0), [int(m) for m in best], upsample=False)
    maps = np.repeat(np.repeat(maps, 4, axis=1), 4, axis=2)  # 7×7, each a square of 4×4 pixels of the digit
    return json.dumps(
        {
            "image": image.tolist(),
            "p": p.tolist(),
            "best": best.tolist(),
            "cam": np.round(maps, 3).tolist(),
            "spatial": {name: np.round(gate, 3).tolist() for name, gate in spatial.items()},
            "channel": {name: np.round(gate, 3).tolist() for name, gate in channel.items()},
        }
    )
