"""Costs parsed from XLA's texts, and their display."""

import pytest

from seg.engine.jax import step_cost
from seg.engine.jax.step_cost import Compiled, StepCost

PROGRAM = """
HloModule jit_one, is_scheduled=true
%add { ROOT %add.1 = f32[]{:T(256)} add(f32[] %x, f32[] %y) }
ENTRY %main {
  %all-reduce.1 = (f32[10,3]{1,0:T(8,128)S(1)}, s32[4]{0:T(128)}) all-reduce(%a, %b), to_apply=%add
  %all-reduce-start.2 = bf16[7,2]{1,0:T(8,128)(2,1)} all-reduce-start(bf16[7,2]{1,0} %c), to_apply=%add
  %all-reduce-done.2 = bf16[7,2]{1,0} all-reduce-done(bf16[7,2]{1,0} %all-reduce-start.2)
  %ag = (pred[5]{0}, pred[4,5]{1,0}, token[]) all-gather-start(pred[5]{0} %d), dimensions={0}
  %cp = (f32[3]{0}, f32[3]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(f32[3]{0} %e)
  ROOT %sum = f32[] all-reduce(f32[] %f), to_apply=%add
}
"""


def test_collectives():
    assert step_cost.collectives(PROGRAM) == {
        'all-reduce': (3, 4 * 30 + 4 * 4 + 2 * 14 + 4),
        'all-gather': (1, 20),
        'collective-permute': (1, 12),
    }
    assert step_cost.collectives('ENTRY %main { ROOT %x = f32[4]{0} add(f32[4] %a, f32[4] %b) }') == {}


ON_CHIP = """
HloModule jit_one, is_scheduled=true

%fused_computation.1 (param_0: f32[8,128]) -> f32[8,128] {
  %param_0 = f32[8,128]{1,0:T(8,128)S(1)} parameter(0)
  ROOT %add.9 = f32[8,128]{1,0:T(8,128)S(1)} add(%param_0, %param_0)
}

ENTRY %main (p: f32[5,3], q: f32[64,128]) -> f32[8,128] {
  %p = f32[5,3]{0,1:T(8,128)} parameter(0)
  %q = f32[64,128]{1,0:T(8,128)} parameter(1)
  %copy-start.1 = (f32[5,3]{0,1:T(8,128)S(1)}, f32[5,3]{0,1:T(8,128)}, u32[]{:S(2)}) copy-start(%p)
  %copy-done.1 = f32[5,3]{0,1:T(8,128)S(1)} copy-done(%copy-start.1)
  %slice-start.1 = ((f32[64,128]{1,0:T(8,128)}), f32[8,128]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%q)
  %slice-done.1 = f32[8,128]{1,0:T(8,128)S(1)} slice-done(%slice-start.1)
  ROOT %fusion.1 = f32[8,128]{1,0:T(8,128)} fusion(%slice-done.1, /*index=1*/%copy-done.1), calls=%fused_computation.1
}
"""


def test_accesses_on_the_chip():
    """Each array has one tile of 8 x 128. In the main memory starts read two, and the fusion writes one."""
    assert step_cost.on_chip(ON_CHIP) == pytest.approx(4 / 7)
    assert step_cost.on_chip(ON_CHIP.replace('S(1)', '')) == 0.0
    assert step_cost.on_chip('ENTRY %main () -> f32[] {\n  ROOT %x = f32[] constant(1)\n}') == 0.0


@pytest.mark.parametrize(
    ('message', 'expected'),
    [
        (
            'RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (46.00G) '
            'exceeds available HBM (15.75G).',
            (46.0, 15.75),
        ),
        (
            'RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 21.95G '
            'of 15.48G hbm. Exceeded hbm capacity by 6.47G.',
            (21.95, 15.48),
        ),
        ('Used 1.50T of 512.0M hbm.', (1536.0, 0.5)),
        ('INTERNAL: something else (1G)', None),
    ],
)
def test_what_does_not_fit(message, expected):
    assert step_cost.excess(message) == expected


def test_a_step_that_fits():
    program = Compiled(4.7123, None, 794e9, 12.3e9, {'all-reduce': [98, 14_200_000]}, 134.4, 250.6)
    text = StepCost('training', 8, 16, 64, program).text()
    for told in (
        'batch 64 = 8 x 8',
        'memory 4.71 of 16 GiB',
        '794 GFLOP',
        '12.3 GB',
        '98 all-reduce (14.2 MB)',
        '134 s',
    ):
        assert told in text


def test_a_step_that_does_not_fit():
    too_large, fitting = Compiled(23.1, 15.48), Compiled(14.9, None, 1e9)
    text = StepCost('training', 8, 16, 64, too_large, 40, fitting).text()
    for told in (
        'batch 64 = 8 x 8',
        'does not fit',
        'memory 23.1 of 16 GiB',
        '15.48',
        'batch 40 = 8 x 5',
        '14.9 of 16',
    ):
        assert told in text
    assert StepCost('training', 8, 16, 8, too_large).text().endswith('No batch fits.')


@pytest.mark.parametrize(
    ('flops', 'shown'), [(12_739.6e9, '12,740'), (0.59376e9, '0.5938'), (794.12e9, '794.1'), (0, '0')]
)
def test_operations(flops, shown):
    assert Compiled(1.0, flops=flops).gflop == shown
