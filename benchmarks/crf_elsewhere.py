"""Other dense CRFs, in a Python that has them: benchmarks/crf.py asks, this answers with seconds.

Started with PYTHONPATH at another build of pydensecrf, or at SimpleCRF and the numpy that it needs.
Reads a line of JSON per call from standard input: photo and probabilities (.npy files) and the
CRF's parameters; writes its seconds. Imports nothing of `segment`, which that Python may not have.
"""

import json
import sys
import time

import numpy as np


def with_pydensecrf(photo: np.ndarray, p: np.ndarray, crf: dict) -> None:
    """As segment.crf.pydensecrf calls it."""
    import pydensecrf.densecrf as lattice

    classes, height, width = p.shape
    field = lattice.DenseCRF2D(width, height, classes)
    unary = -np.log(np.clip(p, crf["clip"], 1)).reshape(classes, -1)
    field.setUnaryEnergy(np.ascontiguousarray(unary, np.float32))
    field.addPairwiseGaussian(sxy=crf["position_width_px"], compat=crf["position_weight"])
    field.addPairwiseBilateral(
        sxy=crf["bilateral_width_px"],
        srgb=crf["bilateral_width_levels"],
        rgbim=photo,
        compat=crf["bilateral_weight"],
    )
    np.array(field.inference(crf["iterations"]))


def with_simplecrf(photo: np.ndarray, p: np.ndarray, crf: dict) -> None:
    """It gives labels, no probabilities, and clips them its own way."""
    import denseCRF

    names = (
        "bilateral_weight",
        "bilateral_width_px",
        "bilateral_width_levels",
        "position_weight",
        "position_width_px",
        "iterations",
    )
    parameters = tuple(float(crf[name]) for name in names)
    denseCRF.densecrf(photo, np.ascontiguousarray(p.transpose(1, 2, 0)), parameters)


def main() -> None:
    """Answer until the input ends."""
    call = {"pydensecrf": with_pydensecrf, "simplecrf": with_simplecrf}[sys.argv[1]]
    for line in sys.stdin:
        asked = json.loads(line)
        photo, p = np.load(asked["photo"]), np.load(asked["probabilities"])
        start = time.perf_counter()
        call(photo, p, asked["crf"])
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
