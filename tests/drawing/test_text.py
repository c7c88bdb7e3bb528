"""Names in images."""

import subprocess
import sys

import pytest

from seg.drawing import text


@pytest.mark.parametrize('name', ['road', 'Straße', 'дорога', 'δρόμος', 'cây', '$x_1$', '_hidden'])
def test_names_that_the_font_can_draw(name):
    assert text.class_label(name, 3) == name == text.drawable(name)


@pytest.mark.parametrize('name', ['道路', '자동차', 'road 道', ''])
def test_other_names_become_numbers(name):
    assert text.class_label(name, 3) == 'class 3'


def test_missing_characters():
    assert text.drawable('画像_07\n b') == '??_07 b'


def test_shorten():
    fits = lambda cut: len(cut) <= 7  # noqa: E731
    assert text.shorten('seven77', fits) == 'seven77'
    assert text.shorten('traffic light green', fits) == 'tra…een'
    assert text.shorten('abc', lambda cut: len(cut) <= 1) == '…'
    assert text.shorten('abc', lambda cut: False) == '…'


def test_matplotlib_waits_for_the_first_chart():
    """A start need not wait for its import."""
    program = 'import sys; import seg.drawing.charts; print("matplotlib" in sys.modules)'
    done = subprocess.run([sys.executable, '-c', program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == 'False'
