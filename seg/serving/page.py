"""The page of the server: a person drops an image and sees its prediction; without any request to other servers."""

from __future__ import annotations

import os
from typing import Any

from seg.prediction.settings import PredictSettings
from seg.report import layout
from seg.serving.answers import Answers
from seg.serving.limits import Limits
from seg.serving.model import Model

_FOLDER = os.path.dirname(os.path.abspath(__file__))


def about(model: Model, answers: Answers, limits: Limits) -> dict[str, Any]:
    """What `/model` answers."""
    return {
        'model': os.path.basename(os.path.normpath(model.path)),
        'format': model.format,
        'task': answers.kind,
        'data': model.info.name,
        'canvas': list(model.canvas),
        'classes': answers.classes(),
        'max_megabytes': limits.max_megabytes,
        'max_megapixels': limits.max_megapixels,
    }


def render(about: dict[str, Any], settings: PredictSettings) -> str:
    """The page as HTML."""
    return layout.render(
        _FOLDER,
        title='Segment an image',
        script=layout.read(_FOLDER, 'page.js'),
        about=about,
        opacity=settings.opacity,
        min_score=settings.min_score if about['task'] == 'instance' else 0.0,
    )
