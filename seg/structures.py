"""Records that plugins, tasks, engine and executor exchange."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from seg.errors import UserError, shown

# ImageNet's mean pixel (RGB, 0..255). Padding has this value, which is about zero after a backbone's normalisation.
PAD_PIXEL = (123.675, 116.28, 103.53)
# Height and width, in pixels, of the symbolic image on which models are built. Every stride up to 64 divides it.
SYMBOLIC_SIDE = 256
# Keys of an evaluation's record besides its metrics; no metric may have one of these names.
RECORD_KEYS = ('kind', 'step', 'examples', 'seconds', 'split', 'weights', 'details')


class DataLimits(NamedTuple):
    """What the settings of a task allow of its data, for `--mode=check_data`.

    Attributes:
      instances: by setting, the largest number of instances of an image that it leaves room for.
      instances_of_class: the same for the instances of one class.
      anchor_sizes: sides of the square anchors in pixels, the smallest first; empty for a task without anchors.
      eval_size: (height, width) that images are scaled to fit in evaluation; None for their own size.
      stride: pixels of an image per cell of the coarsest map: a smaller image has no cell of its own.
    """

    instances: Mapping[str, int] = {}
    instances_of_class: Mapping[str, int] = {}
    anchor_sizes: Sequence[float] = ()
    eval_size: tuple[int, int] | None = None
    stride: int = 32


class LossTerm(NamedTuple):
    """One loss, per image and un-normalised.

    The engine computes `sum(total) / sum(weight)` over the images of all replicas, and stops the gradient through the
    weights. A term with weight 0 everywhere is 0. A coefficient scales `total` only.

    Attributes:
      total: [B] float, summed loss of each image.
      weight: [B] float, the divisor of that sum (for a pixel loss: the number of pixels that count).
      counts: numbers to watch, [B] float by name, such as the positive anchors of each image; summed over the global
        batch and logged as `counts/<name>` per image.
    """

    total: Any
    weight: Any
    counts: Mapping[str, Any] = {}  # Never changed. A plain dict, because a tf.function may return the term.


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """Facts about a data set that other parts need.

    Attributes:
      name: for titles and file names, such as `voc_layout/train`.
      class_names: one name per class; class id = position. `num_classes` is their number and never set by hand.
      ignore_label: label value of pixels that count nowhere.
      num_examples: size of the split; None for an endless data set.
      max_size: (height, width) of the largest image, in pixels.
      original_ids: the ids in the data set's own files, by class id; None if they are the same.
      colors: one (r, g, b) per class for figures; empty for the default palette.
    """

    name: str
    class_names: tuple[str, ...]
    num_examples: int | None
    max_size: tuple[int, int]
    ignore_label: int = 255
    original_ids: tuple[int, ...] | None = None
    colors: tuple[tuple[int, int, int], ...] = ()

    def __post_init__(self):
        if isinstance(self.class_names, str):  # Its letters would be classes.
            raise UserError(
                f'{self.name}: class_names is {shown(self.class_names)}, expected a tuple of names. Is a comma missing?'
            )

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


class FeatureMap(NamedTuple):
    """Shape of one feature map: its stride in pixels of the image, and its channels."""

    stride: int
    channels: int


@dataclasses.dataclass(frozen=True)
class BackboneSpec:
    """The stride and the channels of each output of a backbone: all that a decoder knows of it."""

    features: Mapping[str, FeatureMap]

    @classmethod
    def of(cls, model: Any, slot: str = 'backbone') -> BackboneSpec:
        """Reads the spec of a built backbone.

        Args:
          model: Keras model from [B, H, W, 3] to a dict of maps with `c2` to `c5` (optional `c1`, `low`). If it takes
            images of one size only, its attribute `image_size` is (height, width) in pixels.
          slot: the setting that holds the backbone, for messages.

        Raises:
          UserError: if the outputs are not a dict, or do not include `c2` to `c5`.
        """
        import keras

        size = getattr(model, 'image_size', None) or (SYMBOLIC_SIDE, SYMBOLIC_SIDE)
        outputs = model.compute_output_spec(keras.KerasTensor((1, *size, 3), dtype=model.compute_dtype))
        names = sorted(outputs) if isinstance(outputs, Mapping) else []
        if not {'c2', 'c3', 'c4', 'c5'} <= set(names):
            received = f'a dict with {names}' if isinstance(outputs, Mapping) else type(outputs).__name__
            raise UserError(
                f'{slot}: a backbone maps an image to a dict with the feature maps c2, c3, c4 and c5; '
                f'{model.name!r} returned {received}.'
            )
        return cls({name: FeatureMap(size[0] // outputs[name].shape[1], outputs[name].shape[-1]) for name in names})

    def __getitem__(self, name: str) -> FeatureMap:
        return self.features[name]

    def symbolic(self, dtype: str) -> dict[str, Any]:
        """The maps of two images of `SYMBOLIC_SIDE` pixels, as symbolic Keras tensors to build layers on."""
        import keras

        def tensor(stride: int, channels: int) -> keras.KerasTensor:
            cells = SYMBOLIC_SIDE // stride
            return keras.KerasTensor((2, cells, cells, channels), dtype=dtype)

        return {name: tensor(*features) for name, features in self.features.items()}


class ClassRows(NamedTuple):
    """Where a variable of a head has rows for each class. A head's `class_rows()` returns them by `variable.path`.

    With them, weights of a model with other classes keep the rows of classes of the same names.

    Attributes:
      axis: the axis of the rows.
      before: rows before those of the first class, such as one for the background.
      each: rows of a class.
    """

    axis: int = -1
    before: int = 0
    each: int = 1

    def of(self, classes: Sequence[int]) -> list[int]:
        """The rows of these classes, after those that belong to none."""
        return [*range(self.before), *(self.before + self.each * k + i for k in classes for i in range(self.each))]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """Published weights of a backbone, which its builder attaches to the model as the attribute `published`.

    `init.weights = 'imagenet'` loads them from an installed Python package that contains the file, otherwise from the
    address, once. With neither, only files given by path are converted. Other parts of a model may have this attribute
    as well: each converts its own weights from a file given by path.

    Attributes:
      title: name of the weights, for the report.
      convert: function from the file's tensors by name to arrays by `variable.path` of the backbone (or other part), in
        the layout of its variables; numpy only. It gets all tensors of the file and may ignore some. For a file of
        another architecture a backbone may raise `UserError`, and other parts return an empty dict.
      class_names: function from the file's tensors to the names of the classes that the arrays have rows for; None if
        they are unknown.
      package_file: path of the file in an importable package, such as `some_package/models/weights.pth`, or ''.
      url: address of the file, whose last component is the file's name, or ''.
      checksum: checksum of the file, or its first digits: 'sha256:…' or 'md5:…'.
      install: command that installs the package, for messages.
      load: for a model of another library, which has its own files and conversion, in place of `convert`: a function
        from `init.weights` ('imagenet', 'zeromodels:…', 'hf:…', 'timm:…') and `fetch` to arrays by `variable.path`.
        `fetch(url, checksum, name)` returns the path of a file, which it downloads once; the name and the checksum may
        be ''.
      readers: for such a model: functions from the path of a file to these arrays, by the end of the file's name, such
        as '.h5'.
      added: beginning of the names of variables that no file has, because the model was extended by them; or ''.
    """

    title: str
    convert: Callable[[dict[str, Any]], dict[str, Any]] = lambda tensors: {}
    class_names: Callable[[dict[str, Any]], Sequence[str] | None] = lambda tensors: None
    package_file: str = ''
    url: str = ''
    checksum: str = ''
    install: str = ''
    load: Callable[[str, Callable[..., str]], dict[str, Any]] | None = None
    readers: Mapping[str, Callable[[str], dict[str, Any]]] = dataclasses.field(default_factory=dict)
    added: str = ''

    def __post_init__(self):
        if (self.package_file or self.url) and self.checksum.partition(':')[0] not in ('sha256', 'md5'):
            raise UserError(
                f'published weights {self.title!r}: checksum is {self.checksum!r}, expected one such as '
                "'sha256:0676ba61…'."
            )


class ClassHistogram(NamedTuple):
    """Pixels of a data set by class, [num_classes] int64 each.

    Attributes:
      pixels: pixels of each class.
      present_pixels: all labelled pixels of the images that contain the class.
    """

    pixels: Any
    present_pixels: Any


class Annotations(NamedTuple):
    """Ground-truth instances of one image, at its native resolution.

    Attributes:
      height: height of the image, in pixels.
      width: width of the image, in pixels.
      boxes: float32 [N, 4], y0, x0, y1, x1 in pixels.
      classes: int32 [N], 0 to K - 1.
      is_crowd: bool [N]; detections in a crowd region do not count as errors.
      area: float32 [N], area of the instance in pixels, as stated by the data set.
      masks: N run-length encodings in pycocotools' form: dicts of `size` [height, width] and `counts` (bytes).
    """

    height: int
    width: int
    boxes: Any
    classes: Any
    is_crowd: Any
    area: Any
    masks: Sequence[dict[str, Any]]


class Detections(NamedTuple):
    """Detected instances of one image, at the image's own size, by decreasing score.

    Attributes:
      boxes: float32 [D, 4], y0, x0, y1, x1 in pixels.
      scores: float32 [D], 0 to 1.
      classes: int32 [D], 0 to K - 1.
      masks: D run-length encodings in pycocotools' form: dicts of `size` [height, width] and `counts` (bytes).
    """

    boxes: Any
    scores: Any
    classes: Any
    masks: Sequence[dict[str, Any]]


class ImageSummary(NamedTuple):
    """A figure for TensorBoard.

    Attributes:
      tag: its name; the part before a slash is the name of a group.
      pixels: uint8 [H, W, 3].
      photo: whether it contains images, for which JPEG needs far fewer bytes than PNG.
    """

    tag: str
    pixels: Any
    photo: bool = False


class Panels(NamedTuple):
    """The parts of the figure of an image, for pages that show them one by one.

    Attributes:
      caption: numbers about the image, such as `mIoU 0.712`.
      pixels: uint8 [h, w, 3] of one size, by heading; the image itself first.
    """

    caption: str
    pixels: Mapping[str, Any]


@runtime_checkable
class Figure(Protocol):
    """An image of an evaluation with ground truth and prediction, kept until the evaluation ends."""

    def draw(self) -> Any:
        """Pixels, uint8 [H, W, 3]."""

    def panels(self) -> Panels | None:
        """The parts of the figure, for the report's table of images; None for a figure without parts."""


class Share(NamedTuple):
    """The rows of each global batch that one process makes: of B, `index B / count` to `(index + 1) B / count - 1`.

    Attributes:
      index: index of the process, 0 to count - 1.
      count: processes that make a global batch together.
    """

    index: int = 0
    count: int = 1


WHOLE = Share()


@dataclasses.dataclass(frozen=True)
class Input:
    """An input function, and the facts about it that the host needs.

    Attributes:
      make: `make(start=0, share=WHOLE, pieces=1)` returns a `tf.data.Dataset` of batches: for each step from `start`
        on, the share's rows of the global batch in their order, divided into `pieces` batches of equal size, one for
        each replica of the process. The rows of a step do not depend on `start`, `share` and `pieces`.
      batch_size: global.
      num_examples: examples of one pass; None for an endless stream.
      name: name of the data, such as `voc_layout/val`.
      image_name: function from a position in the data set to the image's name.
      truth: function from a position in the data set to the image's annotations, for metrics that compare on the host;
        None if the ground truth is in the batches.
      why_unreadable: function from a position in the stream (batch * batch_size + row) to the reason why the image
        there has weight 0. Raises a `UserError` if the cause is the data set's labels or an augmentation, not the file.
    """

    make: Callable[..., Any]
    batch_size: int
    num_examples: int | None
    name: str
    image_name: Callable[[int], str]
    truth: Callable[[int], Annotations] | None = None
    why_unreadable: Callable[[int], str] | None = None

    def names(self, indices: Sequence[int], limit: int = 8) -> str:
        """Names images for a message: 'a, b, … (3 more)'."""
        unique = list(dict.fromkeys(int(i) for i in indices))
        more = len(unique) - limit
        return ', '.join(self.image_name(i) for i in unique[:limit]) + (f', … ({more} more)' if more > 0 else '')
