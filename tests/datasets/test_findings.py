"""Findings: one message for a run and for `--mode=check_data`."""

import pytest

from seg.datasets import findings
from seg.datasets.findings import FIX, NOTE, WARN, Finding
from seg.errors import UserError
from tests.datasets import small


class Found(small.LabelMaps):
    """A data set with these findings."""

    def __init__(self, *found):
        super().__init__()
        self.found, self.depths = found, []

    def findings(self, full):
        self.depths.append(full)
        return self.found


class Verified(small.LabelMaps):
    """A plugin that defines `verify` alone."""

    def verify(self):
        raise UserError('mine: a.png is empty.')


def test_a_message_shows_five_offenders_and_the_remedy():
    faults = [(f'image {i}', f'{i}.png: the file is empty.') for i in range(7)]
    (found,) = findings.unusable('empty_file', 'mine', faults, 9, 'images')
    assert found.count == len(found.images) == 7 and found.severity == FIX
    head, *lines = found.message().splitlines()
    assert head == 'mine: 7 of 9 images cannot be used:'
    assert lines == [*(f'  {i}.png: the file is empty.' for i in range(5)), '  … and 2 more.']
    assert findings.unusable('empty_file', 'mine', [], 9) == []
    assert Finding(kind='x', severity=NOTE, text='One.', remedy='Two.').message() == 'One. Two.'
    with pytest.raises(ValueError, match='severity'):
        Finding(kind='x', severity='bad', text='One.')


def test_a_run_refuses_what_must_be_fixed_and_logs_warnings(caplog):
    notes = [Finding(kind='n', severity=NOTE, text='A note.'), Finding(kind='w', severity=WARN, text='A warning.')]
    dataset = Found(*notes)
    dataset.verify()
    assert dataset.depths == [False] and 'A warning.' in caplog.text and 'A note.' not in caplog.text
    with pytest.raises(UserError, match=r'^A fault\. Repair it\.$'):
        Found(*notes, Finding(kind='f', severity=FIX, text='A fault.', remedy='Repair it.')).verify()


def test_the_error_of_verify_is_a_finding():
    (found,) = findings.of(Verified(), full=True)
    assert (found.kind, found.severity, found.text) == ('refused', FIX, 'mine: a.png is empty.')
    dataset = Found(Finding(kind='n', severity=NOTE, text='A note.'))
    assert findings.of(dataset, full=True) == list(dataset.found) and dataset.depths == [True]
    assert findings.of(small.LabelMaps(), full=True) == []
