"""Makes torch_batch_norm.npz: what torch 2.13.0 computes over a few training steps of BatchNorm.

torch is no dependency of this project. To make the file again, in a throw-away environment:
    pip install torch==2.13.0 numpy && python tests/golden/make_torch_batch_norm.py

Keys are CASE/FIELD for what goes in and CASE/DTYPE/FIELD for what comes out; arrays are
channels-last, with the steps in front. torch's momentum is the weight of the NEW value: the file
holds ours, decay = 1 - momentum; decay 1 stands for momentum None, the plain mean of all batches.
"""

from pathlib import Path

import numpy as np
import torch

STEPS = 3
CASES = {  # shape, decay, eps
    "dense": ((8, 3), 0.9, 1e-5),
    "pair": ((2, 4), 0.5, 1e-3),
    "sequence": ((4, 5, 2), 0.9, 1e-5),
    "image": ((4, 3, 5, 3), 0.75, 1e-3),
    "volume": ((2, 2, 3, 2, 2), 0.9, 1e-5),
    "plain mean": ((6, 2, 2, 3), 1.0, 1e-5),
}
LAYERS = {
    2: torch.nn.BatchNorm1d,
    3: torch.nn.BatchNorm1d,
    4: torch.nn.BatchNorm2d,
    5: torch.nn.BatchNorm3d,
}


def to_torch(x, dtype):
    return (
        torch.tensor(np.moveaxis(x, -1, 1), dtype=dtype)
        if x.ndim > 1
        else torch.tensor(x).to(dtype)
    )


def to_numpy(x):
    return np.moveaxis(x.detach().numpy(), 1, -1) if x.ndim > 1 else x.detach().numpy().copy()


def train(inputs, decay, eps, dtype):
    """Outputs, gradients and running statistics of every step, and one output in eval mode."""
    layer = LAYERS[inputs["x"][0].ndim](
        inputs["scale"].size, eps=eps, momentum=None if decay == 1 else 1 - decay, dtype=dtype
    )
    with torch.no_grad():
        layer.weight.copy_(to_torch(inputs["scale"], dtype))
        layer.bias.copy_(to_torch(inputs["bias"], dtype))
    steps = []
    for x, dy in zip(inputs["x"], inputs["dy"], strict=True):
        layer.zero_grad()
        x = to_torch(x, dtype).requires_grad_()
        y = layer(x)
        y.backward(to_torch(dy, dtype))
        fields = {"y": y, "dx": x.grad, "d_scale": layer.weight.grad, "d_bias": layer.bias.grad}
        fields |= {"mean": layer.running_mean, "var": layer.running_var}
        steps.append({name: to_numpy(value) for name, value in fields.items()})
    evaluated = to_numpy(layer.eval()(to_torch(inputs["x"][0], dtype)))
    return {name: np.stack([step[name] for step in steps]) for name in steps[0]} | {
        "y_eval": evaluated
    }


def main():
    rng = np.random.default_rng(0)
    arrays = {}
    for case, (shape, decay, eps) in CASES.items():
        inputs = {
            "x": 2 * rng.normal(size=(STEPS, *shape)) + 3 * rng.normal(size=shape[-1]),
            "dy": rng.normal(size=(STEPS, *shape)),
            "scale": rng.uniform(0.5, 2, shape[-1]),
            "bias": rng.normal(size=shape[-1]),
        }
        inputs = {name: value.astype(np.float32) for name, value in inputs.items()}
        arrays |= {f"{case}/{name}": value for name, value in inputs.items()}
        arrays |= {f"{case}/decay": np.float64(decay), f"{case}/eps": np.float64(eps)}
        for dtype in ("float32", "float64"):
            outputs = train(inputs, decay, eps, getattr(torch, dtype))
            arrays |= {f"{case}/{dtype}/{name}": value for name, value in outputs.items()}
    np.savez_compressed(Path(__file__).with_name("torch_batch_norm.npz"), **arrays)


if __name__ == "__main__":
    main()
