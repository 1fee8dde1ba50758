"""BN as a flax.linen module: a door for Linen users, which nothing in vggbn itself needs.

>>> import flax.linen as nn, jax, jax.numpy as jnp
>>> from vggbn.interop.linen import BatchNorm
>>> class Net(nn.Module):
...     @nn.compact
...     def __call__(self, x, *, train):
...         x = BatchNorm()(nn.Dense(3, use_bias=False)(x), train=train)
...         return nn.Dense(2)(nn.relu(x))
>>> x = jnp.ones((8, 4))
>>> variables = Net().init(jax.random.key(0), x, train=True)
>>> sorted(variables["params"]), list(variables["batch_stats"])
(['BatchNorm_0', 'Dense_0', 'Dense_1'], ['BatchNorm_0'])
>>> y, new = Net().apply(variables, x, train=True, mutable=["batch_stats"])
>>> y = Net().apply(variables | new, x, train=False)
"""

import flax.linen as nn

from vggbn.nn import batch_norm as norm


class BatchNorm(nn.Module):
    """`nn.batch_norm.batch_norm` with the variables of `flax.linen.BatchNorm`: its checkpoints fit.

    `train` is the only switch. In training the moving averages step on, unless the module is being
    initialised; Flax refuses that (ModifyScopeVariableError) where `batch_stats` is not mutable.
    Flax's own module has decay 0.99 and keeps the biased variance.
    """

    decay: float = 0.9
    eps: float = 1e-5
    unbiased: bool = True
    groups: int = 1

    @nn.compact
    def __call__(self, x, *, train, mask=None):
        init_params, init_stats = norm.batch_norm_init(x.shape[-1])
        params = {
            name: self.param(name, lambda _, leaf=leaf: leaf) for name, leaf in init_params.items()
        }
        variables = {
            name: self.variable("batch_stats", name, lambda leaf=leaf: leaf)
            for name, leaf in init_stats.items()
        }
        y, new = norm.batch_norm(
            x,
            params,
            {name: variable.value for name, variable in variables.items()},
            train=train,
            decay=self.decay,
            eps=self.eps,
            unbiased=self.unbiased,
            mask=mask,
            groups=self.groups,
        )
        if train and not self.is_initializing():
            for name, variable in variables.items():
                variable.value = new[name]
        return y
