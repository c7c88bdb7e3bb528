"""Figures: label maps, instances, comparisons of truth and prediction, charts. On the host, without TensorFlow."""

from seg.drawing.comparison import Comparison
from seg.drawing.instances import InstanceComparison
from seg.drawing.labels import Color, overlay, palette_png
from seg.drawing.legends import legend
from seg.drawing.plain_figure import PlainFigure

__all__ = ['Color', 'Comparison', 'InstanceComparison', 'PlainFigure', 'legend', 'overlay', 'palette_png']
