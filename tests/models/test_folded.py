"""A whole net with BN folded into its layers."""

from dataclasses import replace

import numpy as np
import pytest

from tests.models.test_models import random_like, shapes
from vggbn.errors import UserError
from vggbn.models import MODELS, Net
from vggbn.models.folded import FOLDABLE, fold_net

NET = Net(image=(16, 16, 3), classes=5, norm="batch", norm_fc=True, width=1 / 16, fc=24)


def drawn(name, net):
    """The model, and variables of which none is where it starts."""
    rng = np.random.default_rng(0)
    params, stats = (random_like(tree, rng) for tree in shapes(name, net))
    return MODELS[name](net), {"params": params, "batch_stats": stats}


@pytest.mark.parametrize("norm", sorted(FOLDABLE))
@pytest.mark.parametrize(
    ("name", "edits"),
    [("vgg_a", {}), ("vgg_a_lrn", {"norm_fc": False}), ("vgg_a", {"bias_before_norm": True}),
     ("mlp", {"activation": "sigmoid", "bn_eps": 1e-2})],
)  # fmt: skip
def test_the_folded_net_has_no_norms_and_the_same_logits(name, edits, norm):
    net = replace(NET, norm=norm, **edits)
    model, variables = drawn(name, net)
    x = np.random.default_rng(1).normal(size=(7, *net.image)).astype(np.float32)
    wanted = np.asarray(model.apply(variables, x, train=False)[0])
    assert np.std(wanted, axis=0).min() > 1e-3 * np.abs(wanted).max(), "it must tell images apart"
    folded = fold_net(net, variables)
    assert not [name for name in folded["params"] if name.startswith("norm_")]
    found = model.apply(folded, x, train=False)[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=2e-5 * np.abs(wanted).max())


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
