"""The page on other libraries' models has the tables of what was measured."""

from seg.backbones.bridge import keras_applications, keras_hub, zeromodels
from seg.backbones.bridge.names import measured
from tools import backbones


def test_page_has_the_tables():
    text = backbones.PAGE.read_text(encoding='utf-8')
    assert backbones.page(text) == text


def test_measured_models_can_be_chosen():
    assert {row['name'] for row in measured('keras_applications')} <= set(keras_applications.MODELS)
    assert {row['name'] for row in measured('keras_hub')} <= set(keras_hub.MODELS)
    assert {row['name'] for row in measured('zeromodels')} <= set(zeromodels.NAMES)
