"""An ingest slow enough to be hit, for processes that are killed: small windows, commits at every one.

Imported by a fork server, so that a process starts in no time: it must import all that is heavy, run nothing.
"""

from __future__ import annotations

import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import transformers.models.llava_onevision.modeling_llava_onevision
import transformers.models.llava_onevision.processing_llava_onevision
import transformers.models.qwen2.modeling_qwen2
import transformers.models.siglip.modeling_siglip  # noqa: F401

from kvstore import models
from kvstore.prefill import plan, writing
from kvstore.prefill.decode import Decoder
from kvstore.store import Store
from tests.ingesting import ingest

WINDOW = 2


def run(
    ready: Connection,
    seconds: float,
    root: Path,
    images: Path,
    wanted: dict[str, Any],
    held: int | None = None,
) -> None:
    """Ingest, each image's decoding taking `seconds` longer; says when it begins and when it has ended.

    held   from the image of this place on, decoding waits until a word comes
    """
    gate, told = threading.Lock(), list[str]()
    models.load_config("tiny-onevision")
    plan.WINDOW_IMAGES, writing.INTERVAL, writing.PATIENCE = WINDOW, 0.0, 0.0
    work = Decoder._work

    def slowly(self: Decoder, image: Any) -> Any:
        nonlocal told
        time.sleep(seconds)
        if held is not None and image.position >= held:
            with gate:
                told = told or [ready.recv()]
        return work(self, image)

    Decoder._work = slowly  # type: ignore[method-assign]
    ready.send("begins")
    _, outcome = ingest(root, images, **wanted)
    ready.send(outcome)


def optimize(ready: Connection, root: Path) -> None:
    """Optimize the store."""
    store = Store.open(root)
    ready.send("begins")
    store.optimize()
    ready.send("ended")
