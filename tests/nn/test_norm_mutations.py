"""Broken copies of BN and its moving averages, one edit each: every one must fail a check of
test_norm.py."""

import ast
import types
from pathlib import Path

import jax
import pytest

import vggbn.nn.batch_norm
import vggbn.nn.moving
from tests.nn.test_norm import CHECKS

MOVING, NORM = (
    Path(module.__file__).read_text(encoding="utf-8")
    for module in (vggbn.nn.moving, vggbn.nn.batch_norm)
)
IMPORTS = "from vggbn.nn.moving import cut_into_groups, mean_over_groups, step_averages\n"
# One module of both: what the one imports of the other is there already.
SOURCE = MOVING + NORM.replace("from __future__ import annotations\n", "").replace(IMPORTS, "")

MUTANTS = {  # name: (the text in norm.py, what stands there instead)
    # the moving averages
    "decay is the weight of the new value": (
        "(decay * old + (1 - decay) * new)",
        "((1 - decay) * old + decay * new)",
    ),
    "averages are not moved": ("(decay * old + (1 - decay) * new)", "(old + 0 * new)"),
    "averages take the biased variance": ("    if unbiased:", "    if False:"),
    "m/(m-1) without being asked for": ("    if unbiased:", "    if True:"),
    "m/(m-1) of one value": ("jnp.maximum(m_G - 1, 1)", "(m_G - 1)"),
    "averages of the first group": (
        "lambda a_G: a_G.mean(0), stats_G",
        "lambda a_G: a_G[0], stats_G",
    ),
    "averages over empty groups": ("a_G.mean(0, where=wide(a_G))", "a_G.mean(0)"),
    "padding alone moves the averages": ("jnp.where(filled_G.any(), new, old)", "new"),
    "warm decay remembers the start": (
        "jnp.minimum(decay, step / (step + 1))",
        "jnp.minimum(decay, (step + 1) / (step + 2))",
    ),
    "warm decay never ends": ("jnp.minimum(decay, step / (step + 1))", "step / (step + 1)"),
    # what the batch is
    "groups are ignored": ("x.reshape(groups, x.shape[0] // groups,", "x.reshape(1, x.shape[0],"),
    "a mean of batch means": (
        "x.reshape(groups, x.shape[0] // groups,",
        "x.reshape(2 * groups, x.shape[0] // groups // 2,",
    ),
    "padding is let in": ("    x_G = keep(x_G)\n", ""),
    "padding is let out": ("return keep(y_G).", "return y_G."),
    "padding counts in m": (
        "_sum(weight) * math.prod(x.shape[2:-1])",
        "math.prod(x.shape[1:-1]) + 0 * _sum(weight)",
    ),
    "m is of rows only": ("_sum(weight) * math.prod(x.shape[2:-1])", "_sum(weight)"),
    "padding counts in the variance": (
        "deviation = x - shift if weight is None else (x - shift) * weight",
        "deviation = x - shift",
    ),
    # the moments
    "unbiased variance to normalise": (
        "rstd = 1 / jnp.sqrt(var + eps)",
        "rstd = 1 / jnp.sqrt(var * m / jnp.maximum(m - 1, 1) + eps)",
    ),
    "one pass": ("_sum(deviation * deviation) / m - correction**2", "_sum(x * x) / m - shift**2"),
    "no correction": ("correction = _sum(deviation) / m", "correction = 0 * shift"),
    "no correction of the variance": (" / m - correction**2", " / m"),
    "no correction of x": (" - shift) - correction", " - shift)"),
    "correction added to the mean": ("- shift) - correction", "- (shift + correction))"),
    "shift not the same in all places": (
        "jax.lax.reduce_precision(_sum(x) / m, limits.nexp, limits.nmant - 1)",
        "_sum(x) / m",
    ),
    "statistics in 16 bits": ("jnp.promote_types(x.dtype, jnp.float32)", "x.dtype"),
    "eps outside the root": ("rstd = 1 / jnp.sqrt(var + eps)", "rstd = 1 / (jnp.sqrt(var) + eps)"),
    "no eps": ("rstd = 1 / jnp.sqrt(var + eps)", "rstd = 1 / jnp.sqrt(var)"),
    "scale is left out": ("* (_channels(scale, x) * rstd) +", "* rstd +"),
    "1/std is left out": ("* (_channels(scale, x) * rstd) +", "* _channels(scale, x) +"),
    "bias is left out": (" * rstd) + _channels(bias, x)", " * rstd)"),
    # the gradient
    "no gradient through the mean": ("- slope * c - constant", "- slope * c"),
    "no gradient through the variance": ("- slope * c - constant", "- constant"),
    "gradient through the mean turned": ("- slope * c - constant", "- slope * c + constant"),
    "gradient through the variance turned": ("- slope * c - constant", "+ slope * c - constant"),
    "no gradient but the direct one": ("dx = gain * dy - slope * c - constant", "dx = gain * dy"),
    "dx without the direct gradient": (
        "dx = gain * dy - slope * c - constant",
        "dx = -slope * c - constant",
    ),
    "dx without scale": ("gain = _channels(scale, x) * rstd\n", "gain = rstd\n"),
    "dx without 1/std": (
        "gain = _channels(scale, x) * rstd\n",
        "gain = _channels(scale, x) + 0 * rstd\n",
    ),
    "the variance's part without scale": ("slope, constant = gain *", "slope, constant = rstd *"),
    "the variance's part with x_hat for c": ("(rstd * (sum_dy_x_hat / m))", "(sum_dy_x_hat / m)"),
    "the variance's part is a sum": ("(sum_dy_x_hat / m)", "sum_dy_x_hat"),
    "the variance's part by m - 1": (
        "(sum_dy_x_hat / m)",
        "(sum_dy_x_hat / jnp.maximum(m - 1, 1))",
    ),
    "the mean's part without scale": ("gain * (sum_dy / m)", "rstd * (sum_dy / m)"),
    "the mean's part without 1/std": ("gain * (sum_dy / m)", "_channels(scale, x) * (sum_dy / m)"),
    "the mean's part is a sum": ("gain * (sum_dy / m)", "gain * sum_dy"),
    "c is x": ("rstd.dtype), _centre(x, shift, correction)", "rstd.dtype), x.astype(rstd.dtype)"),
    "c without the correction": (
        "rstd.dtype), _centre(x, shift, correction)",
        "rstd.dtype), _centre(x, shift, 0 * correction)",
    ),
    "dy in 16 bits": ("dy, c = cotangents[0].astype(rstd.dtype),", "dy, c = cotangents[0],"),
    "d_scale of one group": ("sum_dy_x_hat.sum(0).ravel()", "sum_dy_x_hat[0].ravel()"),
    "d_bias of one group": ("sum_dy.sum(0).ravel()", "sum_dy[0].ravel()"),
    "d_scale with x for x_hat": ("rstd * sum_dy_c", "_sum(dy * x)"),
    "d_scale with c for x_hat": ("rstd * sum_dy_c", "sum_dy_c"),
    "d_scale times gamma": ("rstd * sum_dy_c", "_channels(scale, x) * rstd * sum_dy_c"),
    "d_scale without the correction": ("- correction * sum_dy", ""),
    "d_scale with the correction twice": ("- correction * sum_dy", "- 2 * correction * sum_dy"),
    # evaluation, Algorithm 2 and folding
    "evaluation by the batch": ("    if not train:", "    if False:"),
    "evaluation copies the statistics": (
        "return _affine(x, params, stats, eps), stats",
        "return _affine(x, params, stats, eps), dict(stats)",
    ),
    "evaluation with eps outside the root": (
        'gain = params["scale"] / jnp.sqrt(stats["var"] + eps)',
        'gain = params["scale"] / (jnp.sqrt(stats["var"]) + eps)',
    ),
    "evaluation with params for stats": (
        '_channels(stats["mean"], x)',
        '_channels(params["bias"], x)',
    ),
    "population sum is not divided": ("lambda s: s / count", "lambda s: s"),
    "population of the last batch": (
        "total = batch if total is None else jax.tree.map(jnp.add, total, batch)",
        "total = batch",
    ),
    "population remembers": ("train=True, decay=0.0)", "train=True, decay=0.9)"),
    "population variances are shrunk": ("lambda s: s / count", "lambda s: s / (count + 1)"),
    "fold forgets the bias": (
        'linear.get("bias", jnp.zeros_like(gain_C))',
        "jnp.zeros_like(gain_C)",
    ),
    "fold forgets the mean": (' - stats["mean"]\n    kernel', "\n    kernel"),
    "fold forgets beta": ('bias_C * gain_C + params["bias"]', "bias_C * gain_C"),
    "fold with its own eps": (
        'gain_C = params["scale"] / jnp.sqrt(stats["var"] + eps)',
        'gain_C = params["scale"] / jnp.sqrt(stats["var"] + 1e-5)',
    ),
    "fold along the wrong axis": (
        'linear["kernel"] * _channels(gain_C, linear["kernel"])',
        'linear["kernel"] * gain_C.mean()',
    ),
}

# XLA of jaxlib 0.7 fuses no division into a subtraction: there this edit changes nothing.
SINCE = {"shift not the same in all places": (0, 10)}


def load(source):
    ast.parse(source)
    module = types.ModuleType("mutant")
    exec(compile(source, "mutant of norm.py", "exec"), module.__dict__)
    return module


def failing_check(module):
    """The name of the first check that notices; anything but an assertion is our own mistake."""
    for check in CHECKS:
        try:
            check(module)
        except AssertionError:
            return check.__name__
    return None


def test_the_source_itself_passes_every_check():
    assert failing_check(load(SOURCE)) is None


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of the numbers of broken code
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_fails(name):
    if jax.__version_info__ < SINCE.get(name, ()):
        pytest.skip("with this jax it is no mutant")
    before, after = MUTANTS[name]
    assert SOURCE.count(before) == 1, "norm.py has changed: mend this mutant's text"
    assert failing_check(load(SOURCE.replace(before, after))) is not None


def test_no_two_mutants_are_the_same():
    assert len({SOURCE.replace(*edit) for edit in MUTANTS.values()}) == len(MUTANTS)
