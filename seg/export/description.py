"""The description of an exported file: all that a caller needs besides the numbers.

It is stored as JSON within each file (`seg.export.formats`), and once more in `export.json` beside the files.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from seg.errors import UserError, shown

TASKS = ('semantic', 'instance')
FORMATS = ('saved_model', 'onnx', 'tflite', 'openvino')
QUANTIZATIONS = ('none', 'float16', 'dynamic', 'int8')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Description:
    """Facts about an exported file.

    Attributes:
      task: 'semantic' or 'instance'.
      format: one of `FORMATS`.
      quantize: one of `QUANTIZATIONS`; 'none' is float32.
      canvas: (height, width) of all images, in pixels.
      batch: images of a call; None for any number.
      fills_canvas: whether an image smaller than the canvas is scaled up to fill it; a larger one is always scaled
        down.
      class_names: one name per class; class id = position.
      original_ids: the ids in the data set's own files, by class id; None if they are the same.
      colors: one (r, g, b) per class for figures; empty for the default palette.
      ignore_label: label value of ignored pixels.
      data: name of the training data.
      weights: 'ema' for the moving averages, 'raw' for the weights themselves.
      step: step of the checkpoint.
      seg: version of seg that wrote the file.
      forced: whether the file was written although it failed the check.
      check: figures of the check by name; empty before it ran.
      inputs: dtype, shape and meaning of each input, by name.
      outputs: dtype, shape and meaning of each output, by name.
      heads: of an export with `--raw_heads`, `networks`, the inputs and outputs of each, and `settings` of
        `seg.export.postprocess`; otherwise empty.
    """

    task: str
    format: str
    quantize: str
    canvas: tuple[int, int]
    batch: int | None
    fills_canvas: bool
    class_names: tuple[str, ...]
    original_ids: tuple[int, ...] | None
    colors: tuple[tuple[int, int, int], ...]
    ignore_label: int
    data: str
    weights: str
    step: int
    seg: str
    forced: bool = False
    check: dict[str, Any] = dataclasses.field(default_factory=dict)
    inputs: dict[str, str] = dataclasses.field(default_factory=dict)
    outputs: dict[str, str] = dataclasses.field(default_factory=dict)
    heads: dict[str, Any] = dataclasses.field(default_factory=dict)

    def text(self) -> str:
        """The JSON that a file holds."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def read(cls, content: str | bytes, place: str) -> Description:
        """Reads the result of `text`.

        Args:
          content: the JSON.
          place: the file, for messages.

        Raises:
          UserError: with the file, the key and its value, if it is not such a description.
        """
        try:
            values = json.loads(content)
        except ValueError:
            raise UserError(f'{place}: its description is not JSON. {_REMEDY}') from None
        if not isinstance(values, dict):
            raise UserError(f'{place}: its description is {shown(values)}, expected an object. {_REMEDY}')
        return cls.of(values, place)

    @classmethod
    def of(cls, values: Mapping[str, Any], place: str) -> Description:
        """The description that a JSON object holds; errors as for `read`."""
        defaults = {'forced': False, 'check': {}, 'inputs': {}, 'outputs': {}, 'heads': {}}
        values = {
            field.name: values.get(field.name, defaults.get(field.name, _ABSENT)) for field in dataclasses.fields(cls)
        }
        for key, (expected, fits) in _tests(values).items():
            if values[key] is _ABSENT:
                raise UserError(f'{place}: its description has no {key!r}, expected {expected}. {_REMEDY}')
            if not fits:
                raise UserError(f'{place}: {key} is {shown(values[key])}, expected {expected}. {_REMEDY}')
        ids = values['original_ids']
        return cls(
            **values
            | {
                'canvas': tuple(values['canvas']),
                'class_names': tuple(values['class_names']),
                'original_ids': None if ids is None else tuple(ids),
                'colors': tuple(map(tuple, values['colors'])),
            }
        )


_REMEDY = 'Export the run again: seg_main --mode=export.'
_ABSENT: Any = object()


def _tests(values: Mapping[str, Any]) -> dict[str, tuple[str, bool]]:
    """The valid values of each key: the expectation as text, and whether the value meets it."""
    names = values['class_names']
    k = len(names) if isinstance(names, list | tuple) else 0
    batch, ids, colors = values['batch'], values['original_ids'], values['colors']
    whole = lambda value: type(value) is int  # noqa: E731
    listed = lambda value, length, test: (  # noqa: E731
        isinstance(value, list | tuple) and len(value) == length and all(map(test, value))
    )
    tests = {
        key: (f'one of {", ".join(known)}', values[key] in known if isinstance(values[key], str) else False)
        for key, known in (
            ('task', TASKS),
            ('format', FORMATS),
            ('quantize', QUANTIZATIONS),
            ('weights', ('ema', 'raw')),
        )
    }
    return tests | {
        'canvas': (
            '[height, width] in pixels',
            listed(values['canvas'], 2, lambda side: whole(side) and 0 < side < 2**20),
        ),
        'batch': ('a number of images, or null', batch is None or (whole(batch) and batch > 0)),
        'class_names': ('a list of strings', listed(names, k, lambda name: isinstance(name, str)) and k > 0),
        'original_ids': (f'{k} whole numbers, or null', ids is None or listed(ids, k, whole)),
        'colors': (
            f'{k} lists of 3 numbers from 0 to 255, or none',
            colors == []
            or colors == ()
            or listed(colors, k, lambda c: listed(c, 3, lambda v: whole(v) and 0 <= v < 256)),
        ),
        'ignore_label': ('a whole number', whole(values['ignore_label'])),
        'step': ('a whole number', whole(values['step']) and values['step'] >= 0),
        **{key: ('a string', isinstance(values[key], str)) for key in ('data', 'seg')},
        **{key: ('true or false', isinstance(values[key], bool)) for key in ('fills_canvas', 'forced')},
        **{key: ('an object', isinstance(values[key], dict)) for key in ('check', 'inputs', 'outputs', 'heads')},
    }
