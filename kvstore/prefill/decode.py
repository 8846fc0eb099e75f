"""Images decoded and preprocessed by worker threads, a bounded stretch ahead of the prefill.

Threads, not processes: Pillow's decoding and resizing and numpy's arithmetic release the interpreter's lock,
and pixels need no copy between processes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import TypeAlias

from PIL import Image

from kvstore import images
from kvstore.contracts import Inputs
from kvstore.errors import ImageError
from kvstore.prefill.plan import Plan
from kvstore.prefill.survey import Seen

Ready: TypeAlias = tuple[Seen, Inputs | ImageError]

#: Pillow keeps pixels in blocks. The C library keeps what is freed of blocks up to 32 MiB, for each thread;
#: what is larger goes back to the system at once.
_BLOCK = 2**26
_AHEAD = 2  # windows whose pixels are in memory besides the one in work


class Decoder:
    """Reads ahead through the windows; `busy` is the time that workers worked, in seconds."""

    def __init__(self, plan: Plan, workers: int) -> None:
        self.plan, self.workers, self.busy = plan, workers, 0.0
        self._lock = Lock()
        Image.core.set_block_size(_BLOCK)  # type: ignore[attr-defined]

    def windows(self, todo: Sequence[Sequence[Seen]]) -> Iterator[list[Ready]]:
        """Each window's images, in order, decoded or with what is wrong with them."""
        with ThreadPoolExecutor(self.workers, "decode") as pool:
            ahead: deque[list[Future[Ready]]] = deque()
            try:
                for window in todo:
                    ahead.append([pool.submit(self._work, image) for image in window])
                    if len(ahead) > _AHEAD:
                        yield [future.result() for future in ahead.popleft()]
                while ahead:
                    yield [future.result() for future in ahead.popleft()]
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _work(self, image: Seen) -> Ready:
        start = time.perf_counter()
        try:
            return image, self._inputs(image)
        except ImageError as error:
            return image, error
        finally:
            with self._lock:
                self.busy += time.perf_counter() - start

    def _inputs(self, image: Seen) -> Inputs:
        """The image as the model takes it; its pixels count as in memory until then."""
        assert image.header is not None  # else it would not be in a window
        with images.IN_FLIGHT.taking(image.header.width * image.header.height):
            return self._made(image)

    def _made(self, image: Seen) -> Inputs:
        decoded = images.decode(self.plan.dataset.images[image.position].read())
        if decoded.sha256 != image.sha256:
            raise ImageError(
                "changed", "the file was changed while it was being ingested; run the command again"
            )
        model = self.plan.model
        inputs: Inputs = model.family.preprocess(
            model.config, model.image_processor, decoded.image, self.plan.options.view
        )
        return inputs
