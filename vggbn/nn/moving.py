"""Moving averages, and the batch's statistics that they follow."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def step_average(old, new, decay):
    """decay·old + (1 - decay)·new, in old's dtype; decay is the weight of the OLD value."""
    return (decay * old + (1 - decay) * new).astype(old.dtype)


def step_averages(stats, batch, decay):
    """`step_average` of every leaf of two trees alike; the averages carry no gradient."""
    return jax.tree.map(
        lambda old, new: step_average(old, new, decay), stats, jax.lax.stop_gradient(batch)
    )


def warm_decay(decay, step):
    """min(decay, step / (step + 1)): the moving average forgets its starting value at step 0.

    Until decay takes over it is the plain mean of what it has seen, so early curves are unbiased.
    """
    step = jnp.asarray(step, jnp.float32)
    return jnp.minimum(decay, step / (step + 1))


def cut_into_groups(x, groups: int):
    """x [N, ...] -> [groups, N / groups, ...]: equal slices of a batch, each with statistics of its
    own. ValueError when N is no multiple of `groups`."""
    if x.shape[0] % groups:
        raise ValueError(f"a batch of {x.shape[0]} cannot be cut into {groups} equal groups")
    return x.reshape(groups, x.shape[0] // groups, *x.shape[1:])


def mean_over_groups(stats_G, filled_G=None, otherwise=None):
    """The mean over the first axis of every leaf, of the groups that have a row that counts.

    filled_G [G] bool: which these are; None: all. Where none is, the leaves of `otherwise`: a batch
    of padding alone moves no average.
    """
    if filled_G is None:
        return jax.tree.map(lambda a_G: a_G.mean(0), stats_G)
    wide = lambda a_G: jnp.expand_dims(filled_G, tuple(range(1, a_G.ndim)))  # noqa: E731
    means = jax.tree.map(lambda a_G: a_G.mean(0, where=wide(a_G)), stats_G)
    return jax.tree.map(lambda new, old: jnp.where(filled_G.any(), new, old), means, otherwise)
