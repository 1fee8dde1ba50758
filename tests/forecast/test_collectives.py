"""The collectives of a compiled program's text."""

from vggbn.forecast.collectives import (
    GRADIENTS,
    METRICS,
    OTHER,
    STATISTICS,
    Collective,
    collectives,
)

TEXT = """
HloModule jit_step, entry_computation_layout={(f32[3,3]{1,0})->f32[]}
  %all-reduce.1 = f32[3,3,64]{2,1,0} all-reduce(%dot.9), channel_id=1, metadata={op_name="jit(step)/transpose(jvp())/dot_general"}
  %all-reduce.2 = (f32[1,8]{1,0}, /*index=1*/bf16[8]{0}) all-reduce(%a, %b), metadata={op_name="jit(step)/jvp()/reduce_sum"}
  %get-tuple-element.1 = f32[1,8]{1,0} get-tuple-element(%all-reduce.2), index=0
  %all-reduce.3 = s32[] all-reduce(%c), metadata={op_name="jit(step)/reduce_sum"}
  %all-gather = u8[16,4]{1,0} all-gather(%d), dimensions={0}, metadata={op_name="jit(step)/gather"}
  ROOT %permute = pred[6]{0} collective-permute(%e), source_target_pairs={{0,1}}
  %all-reduce.4 = f64[5]{0} all-reduce(%f)
"""  # noqa: E501


def test_kinds_bytes_and_purposes():
    assert collectives(TEXT) == [
        Collective("all-reduce", 4 * 3 * 3 * 64, GRADIENTS),
        Collective("all-reduce", 4 * 8 + 2 * 8, STATISTICS),
        Collective("all-reduce", 4, METRICS),
        Collective("all-gather", 16 * 4, OTHER),
        Collective("collective-permute", 6, OTHER),
        Collective("all-reduce", 8 * 5, OTHER),
    ]


def test_a_program_without_any_has_none():
    assert collectives("  %dot = f32[4,4]{1,0} dot(%a, %b)\n") == []
