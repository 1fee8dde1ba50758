"""BN section 2: what happens to a gradient step that ignores the normalisation?

BN-10, exactly: the paper's example of a learned bias b before a centring whose dependence on b the
step ignores. BN-11: nets trained with BN whose mean and variance are constants to the gradient
(`vggbn/nn/detached.py`), with biases before BN, against the same nets with BN's whole gradient.

    python -m experiments.bn_gradient                                             small, MNIST-5k
    python -m experiments.bn_gradient --size full --data-dir DIR                  Fashion-MNIST
"""

from __future__ import annotations

import math

import numpy as np

from vggbn.claims.results import Results
from vggbn.commands.experiment import main
from vggbn.experiment.design import Claim, Experiment, Size, Sweep, Tuned
from vggbn.experiment.exact import ExactClaim
from vggbn.report import Chart
from vggbn.training.recipe import Recipe

# What the sweeps of BN's rate chose (sweep.json beside the results).
SMALL = Tuned({"lr": 1.0})
FULL = Tuned({"lr": 0.03})

BASE = Recipe(
    model="mlp",
    fc=100,
    activation="sigmoid",
    norm="batch",
    bias_before_norm=True,  # the b of section 2
    init="normal_0.1",
    image_size=28,
    batch=60,
    steps=20_000,
    lr=0.1,
    l2=0.0,
    dropout=0.0,
    split="fixed",
    watch="weights",
)


def variants(base: Recipe, size: Size) -> dict[str, Recipe]:
    """BN with its gradient and without, at one rate and at a tenth of it."""
    arms = {"bn": base, "detached": base.but(norm="batch_detached")}
    slow = {f"{name} ÷10": recipe.but(lr=recipe.lr / 10) for name, recipe in arms.items()}
    return arms | slow


# --- BN-10: the paper's example -------------------------------------------------------------------

STEPS = 1000


def toy(*, whole: bool) -> tuple[np.ndarray, np.ndarray]:
    """(b, loss) [STEPS + 1] of a layer u + b whose output is centred and is to be a target.

    whole: the gradient knows that the mean depends on b. Plain gradient descent on b alone.
    """
    import jax
    import jax.numpy as jnp

    from vggbn.machine.compiling import enable_x64

    with enable_x64():
        rng = np.random.default_rng(0)
        u, target = (jnp.asarray(rng.normal(size=200) + shift) for shift in (0.0, 0.3))

        @jax.jit
        def value_and_gradient(b):
            def loss(b):
                x = u + b
                mean = x.mean() if whole else jax.lax.stop_gradient(x.mean())
                return ((x - mean - target) ** 2).mean() / 2

            return jax.value_and_grad(loss)(b)

        b, path, losses = jnp.float64(0), [], []
        for _ in range(STEPS + 1):
            loss, gradient = value_and_gradient(b)
            path.append(float(b))
            losses.append(float(loss))
            b = b - 0.1 * gradient
        return np.array(path), np.array(losses)


def check_bias() -> tuple[bool, str]:
    """b grows by the same amount at every step, the loss stays; with the whole gradient b stays."""
    b, loss = toy(whole=False)
    control, _ = toy(whole=True)
    step = np.diff(b)
    change = float(np.ptp(loss))
    linear = np.allclose(step, step[0], rtol=1e-6) and abs(b[-1]) > 1
    holds = change < 1e-6 and linear and float(np.abs(control).max()) < 1e-9
    return holds, (
        f"after {STEPS:,} steps b = {b[-1]:.1f}, {step[0]:+.3f} a step, and the loss has changed "
        f"by {change:.0e}; with the whole gradient b = {control[-1]:.0e}"
    )


EXACT = (
    ExactClaim(
        id="BN-10",
        sentence=(
            "If the step ignores that the mean depends on a bias before it, the bias grows without "
            "end and the loss stays."
        ),
        criterion=(
            f"{STEPS:,} steps on the bias alone, in float64: it grows linearly, the loss changes "
            "by less than 1e-6; with the whole gradient the bias does not move."
        ),
        paper="section 2, by argument",
        check=check_bias,
    ),
)

# --- claims: criterion and margin are fixed here, before the runs ---------------------------------

PRIMARY = "fashion_mnist"

CLAIMS = (
    Claim(
        id="BN-11",
        sentence="Centring and scaling outside of the gradient step make the model blow up.",
        paper="observed, no figures",
        primary=PRIMARY,
        not_tested=(
            "the arm detached renormalises by the batch at hand in each step, so its forward pass "
            "cannot blow up; the paper speaks of statistics that are computed outside the step."
        ),
    ),
)

# --- charts --------------------------------------------------------------------------------------


def charts(results: Results) -> dict[str, Chart]:
    """Training loss, and the norm of the first layer's bias, step by step."""
    losses, biases = {}, {}
    for name in results.variants:
        for seed in results.seeds(name):
            steps, loss = results.curve(name, seed, "train_loss")
            norms = results.curve(name, seed, "weights")[1]
            for step, value, own in zip(steps, loss, norms, strict=True):
                at = float(np.log10(step))
                put(losses, name, at, value)
                put(biases, name, at, own["fc1"]["bias"])
    return {
        "training loss": Chart("log10 of the step", "log10 of the training loss", losses),
        "bias before BN": Chart("log10 of the step", "log10 of the first bias's norm", biases),
    }


def put(series: dict, name: str, at: float, value: float) -> None:
    """Add the logarithm of a positive, finite value."""
    if math.isfinite(value) and value > 0:
        series.setdefault(name, {}).setdefault(at, []).append(math.log10(value))


# --- sizes ---------------------------------------------------------------------------------------

SIZES = {
    "smoke": Size(seeds=2, edits={"steps": 60, "evaluations": 4}),
    "small": Size(seeds=5, edits={"steps": 5_000}, tuned=SMALL),
    "full": Size(seeds=5, edits={"data": "fashion_mnist"}, tuned=FULL),
}

EXPERIMENT = Experiment(
    name="bn_gradient",
    title="Normalisation outside the gradient",
    question="What becomes of a net whose gradient step ignores that it is normalised?",
    base=BASE,
    baseline="bn",
    variants=variants,
    claims=CLAIMS,
    exact=EXACT,
    charts=charts,
    sizes=SIZES,
    panels={"one rate": ("bn", "detached"), "a tenth of it": ("bn ÷10", "detached ÷10")},
    sweep=Sweep(arms={"BN": {}}, rates=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0), seeds=2),
    any_images={},
)

if __name__ == "__main__":
    main(EXPERIMENT)
