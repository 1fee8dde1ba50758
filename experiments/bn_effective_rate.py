"""A larger rate with a weaker L2, on normalised kernels, is a smaller start: BN-35. 10 seconds.

BN ignores the scale of the kernels before it (section 3.3), and the gradient of a kernel a times as
large is 1/a of it. So a net whose normalised kernels take k times the rate and 1/k of the L2 goes,
step by step, where one goes that starts with these kernels divided by √k: two of the paper's seven
changes are, on these kernels, another initialisation. Exact for eps = 0, in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from vggbn.commands.exact import main
from vggbn.experiment.exact import ExactClaim, ExactExperiment

TIMES = 5.0  # the rate, as in BN-x5; the L2 is divided by as much
STEPS = 200
RATE, L2, MOMENTUM = 0.05, 5e-3, 0.9
WIDTHS = (20, 16, 16, 10)  # of a net with two normalised layers and an output
BATCH, BATCHES = 64, 4


class Training(NamedTuple):
    """The loss before each step [STEPS], and the normalised kernels after the last."""

    losses: np.ndarray
    kernels: list[np.ndarray]


def train(
    *, kernel_rate: float = 1, kernel_l2: float = 1, start: float = 1, eps: float = 0.0
) -> Training:
    """A net on random images, in float64, by the suite's SGD.

    kernel_rate and kernel_l2 multiply rate and L2 of the normalised kernels, `start` their first
    values.
    """
    import jax.numpy as jnp

    from vggbn.machine.compiling import enable_x64

    with enable_x64():
        rng = np.random.default_rng(0)
        x_SND = jnp.asarray(rng.normal(size=(BATCHES, BATCH, WIDTHS[0])))
        labels_SN = jnp.asarray(rng.integers(WIDTHS[-1], size=(BATCHES, BATCH)))
        params = _first(rng, start)
        at = np.arange(STEPS) % BATCHES
        # As arrays: one program serves every training.
        given = (jnp.asarray(value, jnp.float64) for value in (kernel_rate, kernel_l2))
        params, losses = _program(eps)(params, (x_SND[at], labels_SN[at]), *given)
        return Training(np.asarray(losses), [np.asarray(k) for k in params["kernels"]])


@cache
def _program(eps: float) -> Callable:
    """(params, batches, kernel_rate, kernel_l2) -> (params after STEPS, losses)."""
    import jax
    import optax

    from vggbn.training.optim import sgd

    def run(params, batches, kernel_rate, kernel_l2):
        rules = {
            "kernels": sgd(RATE * kernel_rate, L2 * kernel_l2, MOMENTUM, l2_on="all"),
            "rest": sgd(RATE, L2, MOMENTUM, l2_on="all"),
        }

        def step(carried, batch):
            params, states = carried
            value, gradients = jax.value_and_grad(_loss)(params, *batch, eps)
            new, after = {}, {}
            for name, rule in rules.items():
                updates, after[name] = rule.update(gradients[name], states[name], params[name])
                new[name] = optax.apply_updates(params[name], updates)
            return (new, after), value

        states = {name: rule.init(params[name]) for name, rule in rules.items()}
        (params, _), losses = jax.lax.scan(step, (params, states), batches)
        return params, losses

    return jax.jit(run)


def _first(rng: np.random.Generator, start: float) -> dict[str, Any]:
    """Glorot's kernels; gamma 1, beta 0; the output's kernel and bias with the rest."""
    import jax.numpy as jnp

    from vggbn.nn.batch_norm import batch_norm_init

    *kernels, last = (rng.normal(size=s) * np.sqrt(2 / sum(s)) for s in pairwise(WIDTHS))
    norms = [batch_norm_init(kernel.shape[1], jnp.float64)[0] for kernel in kernels]
    rest = {"norms": norms, "out": {"kernel": jnp.asarray(last), "bias": jnp.zeros(WIDTHS[-1])}}
    return {"kernels": [jnp.asarray(start * kernel) for kernel in kernels], "rest": rest}


def _loss(params, x_ND, labels_N, eps):
    """The mean cross-entropy of a batch."""
    import jax
    import jax.numpy as jnp
    import optax

    from vggbn.nn.batch_norm import batch_norm, batch_norm_init

    for kernel, norm in zip(params["kernels"], params["rest"]["norms"], strict=True):
        _, stats = batch_norm_init(kernel.shape[1], jnp.float64)
        x_ND = jax.nn.relu(batch_norm(x_ND @ kernel, norm, stats, train=True, eps=eps)[0])
    out = params["rest"]["out"]
    logits_NK = x_ND @ out["kernel"] + out["bias"][None]
    return optax.softmax_cross_entropy_with_integer_labels(logits_NK, labels_N).mean()


def farthest(ours: Training, other: Training, scale: float = 1.0) -> float:
    """The largest relative deviation of losses, and of kernels; theirs are `scale` times ours."""
    losses = np.abs(ours.losses - other.losses).max() / np.abs(ours.losses).max()
    kernels = (
        np.abs(scale * a - b).max() / np.abs(b).max()
        for a, b in zip(ours.kernels, other.kernels, strict=True)
    )
    return float(max(losses, *kernels))


def check_effective_rate() -> tuple[bool, str]:
    """BN-35: the same losses to 1e-9, and kernels √k times as large; without either half another
    training."""
    larger_rate = train(kernel_rate=TIMES, kernel_l2=1 / TIMES)
    smaller_start = train(start=TIMES**-0.5)
    same = farthest(smaller_start, larger_rate, TIMES**0.5)
    alone = {
        "the rate alone": train(kernel_rate=TIMES),
        "the L2 alone": train(kernel_l2=1 / TIMES),
        "the first net": train(),
    }
    others = {name: farthest(smaller_start, found, TIMES**0.5) for name, found in alone.items()}
    with_eps = farthest(
        train(start=TIMES**-0.5, eps=1e-5),
        train(kernel_rate=TIMES, kernel_l2=1 / TIMES, eps=1e-5),
        TIMES**0.5,
    )
    detail = (
        f"{STEPS} steps: largest deviation {same:.0e} with eps 0, {with_eps:.0e} with 1e-5; "
        + ", ".join(f"{name} {value:.1g}" for name, value in others.items())
    )
    return same < 1e-9 and min(others.values()) > 1e-3, detail


CLAIMS = (
    ExactClaim(
        id="BN-35",
        sentence=(
            "Rate ×5 with L2 ÷5, on normalised kernels, is a start from these kernels divided by "
            "√5, and no other change."
        ),
        criterion=(
            f"{STEPS} steps with momentum in float64, eps = 0: losses and √5 times the kernels are "
            "equal to 1e-9; with the rate or the L2 alone they are not."
        ),
        paper="two of the seven changes of BN-x5",
        check=check_effective_rate,
    ),
)

EXPERIMENT = ExactExperiment(
    name="bn_effective_rate",
    title="What a larger rate is to a normalised kernel",
    question="Are a larger rate and a weaker L2 together more than another initialisation?",
    claims=CLAIMS,
    notes=(
        "The identity is of kernels with a BN behind them. Gamma, beta and the last layer take the "
        "baseline's rate here; in the paper's BN-x5 theirs is five times as large too.",
        "Known since: van Laarhoven (2017, arXiv 1706.05350), Hoffer et al. (2018, arXiv "
        "1803.01814).",
    ),
)

if __name__ == "__main__":
    main(EXPERIMENT)
