"""Corrupts test images as ImageNet-C does, for `experiments.run`.

    python -m experiments.corrupt --data=DIR --out=FILE.npz

Writes `images` (corruptions, severities, N, H, W), uint8, of the first N test images,
in the order of `plan.CORRUPTIONS` and of the severities 1 to 5. Needs TensorFlow.
"""

import argparse
import concurrent.futures
import pathlib

import numpy as np

from examples import fit
from experiments import plan
from train.input import corruptions


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args(argv)
    images = fit.read(arguments.data)["x_test"][: arguments.images]
    cases = [(name, level) for name in plan.CORRUPTIONS for level in plan.SEVERITIES]
    with concurrent.futures.ProcessPoolExecutor(arguments.processes) as pool:
        corrupted = [*pool.map(_corrupted, [images] * len(cases), cases)]
    shape = len(plan.CORRUPTIONS), len(plan.SEVERITIES), *images.shape[:3]
    np.savez_compressed(arguments.out, images=np.reshape(corrupted, shape))


def _corrupted(images, case):
    return np.stack(
        [corruptions.corrupt(image, *case, (0, i)) for i, image in enumerate(images)]
    )[..., 0]


if __name__ == "__main__":
    main()
