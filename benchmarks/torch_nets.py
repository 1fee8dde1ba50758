"""The training step in PyTorch: eager or compiled, float32 or bf16 autocast, NCHW or channels_last.

On a GPU float32 means TF32 products, as it does for JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
from torch import nn

from benchmarks import cases
from benchmarks.cases import Case, Contestant


def vgg(case: Case) -> nn.Sequential:
    """Modules under the names of `cases.layers`; NCHW."""
    net = nn.Sequential()
    for layer in cases.layers(case):
        inputs, out = layer.kernel[-2:]
        if layer.is_conv:
            net.add_module(layer.name, nn.Conv2d(inputs, out, 3, padding=1, bias=False))
            norm = nn.BatchNorm2d(out, eps=case.eps, momentum=1 - case.decay)
            net.add_module(f"norm_{layer.name}", norm)
            net.add_module(f"relu_{layer.name}", nn.ReLU(inplace=True))
            if layer.pool_after:
                net.add_module(f"pool_{layer.name}", nn.MaxPool2d(2))
        else:
            if layer.name == "fc1":
                net.add_module("flatten", nn.Flatten())
            net.add_module(layer.name, nn.Linear(inputs, out))
            if layer.name != "fc3":
                net.add_module(f"relu_{layer.name}", nn.ReLU(inplace=True))
    return net


def to_torch(case: Case, name: str, kernel: np.ndarray) -> np.ndarray:
    """A kernel of `cases.weights` in torch's order: HWIO -> OIHW, [C, O] -> [O, C].

    The inputs of fc1 are a flattened map: rows in the order H, W, C there and C, H, W here.
    """
    if kernel.ndim == 4:
        return kernel.transpose(3, 2, 0, 1)
    if name == "fc1":
        channels = [layer for layer in cases.layers(case) if layer.is_conv][-1].kernel[-1]
        side = round((kernel.shape[0] / channels) ** 0.5)
        kernel = kernel.reshape(side, side, channels, -1).transpose(2, 0, 1, 3)
    return kernel.reshape(-1, kernel.shape[-1]).T


class Runner:
    """A contestant that is ready to train; the methods are those of `jax_nets.Runner`."""

    def __init__(self, case: Case, contestant: Contestant, device: str, threads: int):
        if device == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("jax uses a GPU and this torch has none")
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
        self.case, self.device = case, device
        self.precision = getattr(torch, contestant.precision)
        self.net = net = vgg(case)
        self._load()
        layout = torch.channels_last if contestant.channels_last else torch.contiguous_format
        net.to(device, memory_format=layout)
        x_NHWC, labels_N = cases.batch(case)
        x_NCHW = torch.from_numpy(x_NHWC).permute(0, 3, 1, 2)
        self.x_NCHW = x_NCHW.to(device).contiguous(memory_format=layout)
        self.labels_N = torch.from_numpy(labels_N).long().to(device)
        kernels = [p for p in net.parameters() if p.ndim > 1]
        others = [p for p in net.parameters() if p.ndim == 1]
        self.sgd = torch.optim.SGD(
            [{"params": kernels, "weight_decay": case.l2}, {"params": others, "weight_decay": 0.0}],
            lr=case.lr,
            momentum=case.momentum,
            fused=True,  # several times faster than its default
        )
        self.loss = torch.zeros(())
        bf16 = contestant.precision == "bfloat16"

        def forward(x_NCHW, labels_N):
            with torch.autocast(device, torch.bfloat16) if bf16 else nullcontext():
                return nn.functional.cross_entropy(net(x_NCHW), labels_N)

        self.forward = torch.compile(forward) if contestant.compiled else forward

    def _load(self):
        with torch.no_grad():
            for name, leaf in cases.weights(self.case).items():
                module = self.net.get_submodule(name)
                if "kernel" in leaf:
                    kernel = to_torch(self.case, name, leaf["kernel"])
                    module.weight.copy_(torch.from_numpy(np.ascontiguousarray(kernel)))
                else:
                    module.weight.copy_(torch.from_numpy(leaf["scale"]))
                if "bias" in leaf:
                    module.bias.copy_(torch.from_numpy(leaf["bias"]))

    def step(self) -> None:
        """One training step; may return before the device has done it."""
        self.loss = self.forward(self.x_NCHW, self.labels_N)
        self.loss.backward()
        self.sgd.step()
        self.sgd.zero_grad()

    def wait(self) -> float:
        """Wait for the last step: its loss."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return self.loss.item()

    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for p in self.net.parameters())

    def device_peak(self) -> int | None:
        """Peak bytes on an accelerator; None on a CPU, where the process's own peak tells."""
        return torch.cuda.max_memory_allocated() if self.device == "cuda" else None

    def product(self, n: int) -> Callable[[int], None]:
        """multiply(times): do, and wait for, n×n matrix products in this precision."""
        a = torch.ones(n, n, dtype=self.precision, device=self.device)

        def times(count):
            for _ in range(count):
                a @ a
            self.wait()

        return times
