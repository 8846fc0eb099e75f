"""What recipes state and the engine takes: frozen records, free of torch, duckdb and lance.

Pixels are those of the upright image (EXIF orientation applied), x to the right, y down, the origin at the
top left corner of the top left pixel; a box is ``(x0, y0, x1, y1)``, its far edges exclusive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image as PILImage

Site = Literal["value", "key", "input", "encoder"]
View = Literal["base", "all"]
Box = tuple[float, float, float, float]

SITES: tuple[Site, ...] = ("value", "key", "input", "encoder")
VIEWS: tuple[View, ...] = ("base", "all")


# ---------------------------------------------------------------------------------------- data sets


@dataclass(frozen=True, slots=True)
class Keypoint:
    """A named point of an object, in pixels; `visible` is COCO's: 0 not labelled, 1 hidden, 2 seen."""

    name: str
    x: float
    y: float
    visible: int = 2


@dataclass(frozen=True, slots=True)
class Object:
    """One annotated object. `mask` is COCO's compressed RLE of the upright image, its counts as text.

    `object_id` is the data set's own number, unique in the data set; `area` the data set's own figure,
    which for COCO crowds can differ from the mask's pixels.
    """

    object_id: int
    category: str
    box: Box
    area: float
    crowd: bool = False
    mask: str | None = None
    keypoints: tuple[Keypoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Expression:
    """A referring expression: words that single out one object of its image."""

    object_id: int
    text: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something in a data set's files that was not taken as it stands, or not at all.

    `kind` is a fixed phrase in the plural, the same for all of its kind ("segmentations that cannot be
    read"); `place` is where the first is, for a person to look up ("instances.json, annotation 22"); `count`
    is how many. `lost` says that something is left out of the store, for which `kvstore ingest` ends with
    exit code 1; else it was read in the one way in which it can be meant.
    """

    kind: str
    place: str
    count: int = 1
    lost: bool = True


@dataclass(frozen=True, slots=True)
class Annotations:
    """All that a data set says of one image.

    `void` is the mask (as `Object.mask`) of pixels that no evaluation counts: VOC's and DAVIS's 255,
    ImageNet-S's 1000; None where there are none. `notes` are of what lies in this image's files.
    """

    objects: tuple[Object, ...] = ()
    captions: tuple[str, ...] = ()
    expressions: tuple[Expression, ...] = ()
    void: str | None = None
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of a data set, not yet read.

    `name` is unique in the data set and relative to its root, with forward slashes. `read` returns the
    file's bytes and raises `ImageError` when it cannot. `annotate(width, height, orientation)` returns the
    annotations in upright pixels; it is given the upright size and the EXIF orientation (1 to 8) of the
    decoded image, since annotation files may speak of the pixels as stored.
    """

    name: str
    read: Callable[[], bytes]
    annotate: Callable[[int, int, int], Annotations] = lambda width, height, orientation: Annotations()


@dataclass(frozen=True, slots=True)
class PairKeypoint:
    """One keypoint seen in both images of a pair, in upright pixels of each."""

    name: str
    source: tuple[float, float]
    target: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images with the same category of object, for semantic correspondence.

    `source` and `target` are image names; `target_box` is the object box that scales PCK's threshold.
    """

    pair_id: int
    source: str
    target: str
    category: str
    source_box: Box
    target_box: Box
    keypoints: tuple[PairKeypoint, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """A question about one or more images, in the order in which they are shown.

    `images` are image names; `kind` groups questions; `options` are all answers that it could have, empty for
    a free answer.
    """

    question_id: int
    images: tuple[str, ...]
    kind: str
    text: str
    answer: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Clip:
    """A video: image names of its frames in order. An object keeps its `object_id` from frame to frame."""

    name: str
    frames: tuple[str, ...]


@dataclass(frozen=True)
class Dataset:
    """A data set's images, in a fixed order, and what identifies it.

    `sources` are the annotation files read (their bytes enter the fingerprint); `identity` is whatever else
    tells this data set from another (a seed, a size). `images` may build its records on access.
    `categories` are the names of all categories by the data set's own numbers, those without an image too.
    `notes` are of what was met while loading; what lies in one image's files is told by `Annotations.notes`.
    """

    name: str
    split: str
    images: Sequence[ImageRecord]
    root: Path | None = None
    sources: tuple[Path, ...] = ()
    identity: dict[str, Any] = field(default_factory=dict)
    pairs: Sequence[Pair] = ()
    questions: Sequence[Question] = ()
    clips: Sequence[Clip] = ()
    categories: Mapping[int, str] = field(default_factory=dict)
    notes: Sequence[Note] = ()

    def __post_init__(self) -> None:
        for name in ("images", "pairs", "questions", "clips", "notes"):
            if not isinstance(value := getattr(self, name), Sequence):
                raise TypeError(f"Dataset.{name} is to be a sequence, not a {type(value).__name__}")


class DatasetRecipe(Protocol):
    """``ingest/datasets/<name>.py``: a docstring (name, address, one quirk) and these symbols.

    It may also name the ``MODEL`` that is taken without ``--model``. A recipe that reads tools' exports has
    ``load(root, split, annotations=None, images=None)``: the file of ``--annotations`` and the folder of
    ``--images``, given without a root and a split. Other recipes are never given them.
    """

    SPLITS: tuple[str, ...]  # the first is the default; empty when the data set has none

    def load(self, root: Path | None, split: str | None) -> Dataset: ...


class BenchmarkRecipe(Protocol):
    """``ingest/benchmarks/<name>.py``: a docstring (name, address, one quirk) and these symbols.

    A benchmark's questions are those of a data set, whose recipe gives them (`Dataset.questions`).
    """

    DATASET: str  # ingest/datasets/<name>.py
    KINDS: tuple[str, ...]  # kinds of question that it consists of; empty: all


# --------------------------------------------------------------------------------- models and tokens


@dataclass(frozen=True, slots=True)
class Grid:
    """A rectangle of patches of one image, row by row, and where its tokens lie.

    box         the pixel box that the whole grid covers; it may reach beyond the image by less than a cell
    first_token index of the top left patch's token among the image's tokens
    row_stride  tokens from one row to the next: `columns`, or one more where a newline token ends each row
    tile_rows, tile_columns   how many encoder tiles the grid is composed of (1 x 1: a single one)
    """

    rows: int
    columns: int
    box: Box
    first_token: int = 0
    row_stride: int = 0
    tile_rows: int = 1
    tile_columns: int = 1

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise ValueError(f"a grid of {self.rows} x {self.columns} patches")
        if not self.row_stride:
            object.__setattr__(self, "row_stride", self.columns)

    @property
    def patches(self) -> int:
        """How many patches the grid has."""
        return self.rows * self.columns

    def tokens(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Index among the image's tokens of each patch, row by row; int64 [rows * columns]."""
        import numpy as np

        rows = np.arange(self.rows, dtype=np.int64)[:, None] * self.row_stride
        return (self.first_token + rows + np.arange(self.columns, dtype=np.int64)).reshape(-1)


@dataclass(frozen=True, slots=True)
class Layout:
    """The tokens of one image, up to the last that is kept.

    Patches are numbered through the grids in order, newline tokens left out. `tokens` counts all tokens of
    the image in the sequence, newlines included.
    """

    grids: tuple[Grid, ...]
    tokens: int

    @property
    def patches(self) -> int:
        """How many patches all grids have together."""
        return sum(grid.patches for grid in self.grids)

    def positions(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Index among the image's tokens of each patch; int64 [patches]."""
        import numpy as np

        return np.concatenate([grid.tokens() for grid in self.grids])


@dataclass(frozen=True)
class Inputs:
    """One image, preprocessed: what its family's encoder takes, on the CPU.

    pixels   float32; LLaVA families [tiles, 3, height, width], Qwen [grid rows * grid columns, channels],
             encoders alone [3, height, width]
    size     (width, height) of the upright image
    extra    further per-image arguments of the family (Qwen: ``grid_thw``)
    """

    pixels: torch.Tensor
    size: tuple[int, int]
    layout: Layout
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Encoded:
    """What the vision side gives for a batch: a list over images.

    tokens    [tokens, hidden] per image: what enters the language model (newlines included), projected;
              empty where there is no language model
    encoder   {layer: [patches, width]} per image: hidden states at the patch grid, when asked for, numbered
              as transformers' ``hidden_states``: 0 the embeddings, n the output of layer n
    """

    tokens: list[torch.Tensor]
    encoder: list[dict[int, torch.Tensor]]


class Family(Protocol):
    """``ingest/models/<family>.py``: a docstring (classes, token layout, one quirk) and these symbols.

    A family states only its differences; loading, prompting, capture and pooling exist once in the engine.
    Where images of one prompt are not taken as each of them alone would be, it may also have
    ``several(config, processor, images) -> list[Inputs]``. Where settings of a model and of its processor can
    contradict one another, it has ``check(model, processor, settings)``, which raises `ModelError`; the model
    is on the meta device, without weights, and the settings are those of processor_config.json. A
    vision encoder alone has no prompt: its ``IMAGE_START`` is None, it has no ``position_ids``, and its
    layouts count patches only. One that was trained with a text tower may also have ``texts(model, tokenizer,
    texts) -> Tensor [texts, width]``: what the tower makes of texts, as vectors to take dot products with
    hidden states of patches.
    """

    MODEL_TYPES: tuple[str, ...]  # values of ``config.model_type``
    ALIASES: dict[str, str]  # short name -> hub id
    TINY: str  # name of the family's built-in tiny model
    IMAGE_START: (
        str | None
    )  # text before the image's placeholder that belongs to it, "" or "<|vision_start|>"

    def tiny(self, folder: Path) -> None:
        """Write the family's built-in tiny model (weights, processor, tokenizer) into `folder`."""

    def layout(self, config: Any, processor: Any, size: tuple[int, int], view: View) -> Layout:
        """The tokens of an image of `size` (width, height); raises `ImageError` for a size it refuses."""

    def preprocess(self, config: Any, processor: Any, image: PILImage.Image, view: View) -> Inputs:
        """Pixels and layout of one upright RGB image, as the model's own image processor makes them."""

    def encode(self, model: Any, batch: Sequence[Inputs], encoder_layers: Sequence[int]) -> Encoded:
        """Run the vision tower and the projector on a batch already on the model's device."""

    def position_ids(
        self, model: Any, input_ids: torch.Tensor, batch: Sequence[Inputs]
    ) -> torch.Tensor | None:
        """Rotary positions [3, batch, length] where the family needs them (M-RoPE), else None."""
