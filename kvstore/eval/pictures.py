"""A run's images read again from their data set, the same bytes or none, as the model's family takes them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kvstore import images
from kvstore.contracts import ImageRecord, Inputs, View
from kvstore.errors import ImageError
from kvstore.eval.questions import Picture

if TYPE_CHECKING:
    from PIL import Image as PILImage

    from kvstore.models import Loaded


class Pictures:
    """The images of some questions, by name."""

    def __init__(self, records: Iterable[ImageRecord], names: set[str]) -> None:
        self.records = {record.name: record for record in records if record.name in names}

    def read(self, picture: Picture) -> PILImage.Image:
        """The upright image; `ImageError` when it is gone or another than the run stores."""
        if picture.name not in self.records:
            raise ImageError("missing", f"the data set has no {picture.name!r} any more")
        data = self.records[picture.name].read()
        if hashlib.sha256(data).hexdigest() != picture.sha256:
            raise ImageError("changed", f"{picture.name!r} has changed since it was ingested")
        return images.decode(data).image

    def inputs(self, loaded: Loaded, shown: Sequence[Picture], view: View) -> list[Inputs]:
        """The images of one prompt, preprocessed as the model's own processor does with so many."""
        family, config, processor = loaded.family, loaded.config, loaded.image_processor
        read = [self.read(picture) for picture in shown]
        if len(read) > 1 and hasattr(family, "several"):
            return list(family.several(config, processor, read))
        return [family.preprocess(config, processor, image, view) for image in read]
