"""The profile of a step by layer and operation."""

from collections import Counter
from importlib.metadata import version

import pytest

from benchmarks import operations
from benchmarks.cases import Case
from vggbn.nn import layers, norms

PROGRAM = """
ENTRY %main {
  %conv.1 = f32[2,4]{1,0} convolution(%x, %k), metadata={op_name="jit(step)/jvp(kind_conv)/conv"}
  %convolution.7 = f32[3,3]{1,0} convolution(%a, %b), window={size=3x3}
  %transpose_copy_fusion.2 = f32[4,2]{1,0} fusion(%x), kind=kLoop, calls=%c
  %max_fusion = f32[2,4]{1,0} fusion(%x), calls=%d, metadata={op_name="jvp(kind_activation)/max"}
  %cond.3 = (f32[2]) conditional(%p, %x), metadata={op_name="kind_pool/cond"}
  ROOT %add.9 = f32[2]{0} add(%x, %y), metadata={op_name="jit(step)/add"}
  %unseen.1 = f32[2]{0} add(%x, %y), metadata={op_name="jvp(kind_norm)/add"}
}
"""


def test_instructions_get_the_kind_of_their_layer():
    names = ("conv.1", "convolution.7", "transpose_copy_fusion.2", "max_fusion", "cond.3", "add.9")
    took = {name: float(i) for i, name in enumerate(names, 1)}
    assert list(operations.named(took, PROGRAM)) == [
        ("conv f32[2,4]", "conv", 1.0),
        ("convolution f32[3,3]", "conv", 2.0),
        ("transpose_copy_fusion f32[4,2]", "conv", 3.0),
        ("max_fusion f32[2,4]", "activation", 4.0),
        ("add f32[2]", "other", 6.0),
    ]


def test_a_real_step_has_all_kinds_of_layers_and_leaves_no_scope_behind():
    before = layers.conv, norms.NORMS["batch"], dict(layers.ACTIVATIONS)
    found, gemm = operations.operations(Case("A", 16, 3, 16, fc=16, width=1 / 16))
    assert (layers.conv, norms.NORMS["batch"], dict(layers.ACTIVATIONS)) == before
    # Before 0.9 the compiler forgets the names of pools, which are then "other".
    forgotten = {"pool"} if int(version("jaxlib").split(".")[1]) < 9 else set()
    assert {each.kind for each in found} == set(operations.KINDS) - forgotten
    assert all(each.ms > 0 for each in found) and gemm > 0
    convolved = [each for each in found if each.kind == "conv"]
    assert any("f32[16,16,16,4]" in each.text for each in convolved)  # the first layer's output


TINY = Case("A", 16, 3, 4, fc=16, width=1 / 16)


def test_operations_of_pytorch_get_the_kind_of_their_layer():
    torch_operations = pytest.importorskip("benchmarks.torch_operations", exc_type=ImportError)
    steps = [
        {"aten::conv2d": 1.0, "autograd::engine::evaluate_function: ConvolutionBackward0": 2.0},
        {"aten::conv2d": 3.0, "autograd::engine::evaluate_function: ConvolutionBackward0": 2.0},
        {"aten::conv2d": 90.0, "autograd::engine::evaluate_function: ConvolutionBackward0": 2.0},
    ]
    assert torch_operations.by_kind([Counter(step) for step in steps]) == {"conv": 5.0}


def test_a_real_step_of_pytorch_has_all_kinds_of_layers():
    pytest.importorskip("torch")
    took = operations.torch_profile(TINY, "torch")
    assert took.keys() == set(operations.KINDS) and all(ms > 0 for ms in took.values())


def test_without_pytorch_its_column_is_empty(monkeypatch):
    monkeypatch.setattr(operations, "find_spec", lambda name: None)
    monkeypatch.setattr(operations, "STEPS", 1)
    rows = [row for row in operations.section(TINY).splitlines() if row.startswith("| ")]
    assert "not installed" in rows[0]
    assert all(row.endswith("| – |") for row in rows[1 : 2 + len(operations.KINDS)])


@pytest.mark.parametrize("net", ["a33"])
def test_a_mistake_gets_one_sentence(net, monkeypatch):
    monkeypatch.setattr("sys.argv", ["operations", net])
    with pytest.raises(operations.UserError, match="a32"):
        operations.main()
