"""A whole net with BN folded into its layers."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vggbn.errors import UserError
from vggbn.models import MODELS, Net
from vggbn.models.folded import FOLDABLE, fold_net

NET = Net(image=(16, 16, 3), classes=5, norm="batch", norm_fc=True, width=1 / 16, fc=24)


def drawn(name, net, seed=0):
    """The model, and variables of which none is where it starts."""
    model = MODELS[name](net)
    variables = model.init(jax.random.key(seed), "he")
    rng = np.random.default_rng(seed)
    vary = lambda a: jnp.asarray(a * rng.uniform(0.5, 2, a.shape) + rng.uniform(0, 0.3, a.shape))  # noqa: E731
    return model, jax.tree.map(vary, variables)


@pytest.mark.parametrize("norm", sorted(FOLDABLE))
@pytest.mark.parametrize(
    ("name", "edits"),
    [("vgg_a", {}), ("vgg_a_lrn", {"norm_fc": False}), ("vgg_a", {"bias_before_norm": True}),
     ("mlp", {"activation": "sigmoid", "bn_eps": 1e-2})],
)  # fmt: skip
def test_the_folded_net_has_no_norms_and_the_same_logits(name, edits, norm):
    net = replace(NET, norm=norm, **edits)
    model, variables = drawn(name, net)
    x = jax.random.normal(jax.random.key(1), (7, *net.image))
    wanted = model.apply(variables, x, train=False)[0]
    assert np.std(wanted, axis=0).min() > 1e-3 * np.abs(wanted).max(), "it must tell images apart"
    folded = fold_net(net, variables)
    assert not [name for name in folded["params"] if name.startswith("norm_")]
    found = model.apply(folded, x, train=False)[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=2e-5 * float(jnp.abs(wanted).max()))


@pytest.mark.parametrize(
    ("edits", "word"),
    [({"norm": "layer"}, "norm=layer"), ({"norm": "whiten"}, "norm=whiten"),
     ({"norm_after": True}, "behind the non-linearity")],
)  # fmt: skip
def test_what_does_not_fold_is_refused(edits, word):
    net = replace(NET, **edits)
    _, variables = drawn("vgg_a", net)
    with pytest.raises(UserError, match=word):
        fold_net(net, variables)
