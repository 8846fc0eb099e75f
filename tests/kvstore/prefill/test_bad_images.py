"""Broken, strange and hostile images through a whole ingest: each is refused with its reason, or stored."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kvstore import datasets, models
from kvstore.contracts import Dataset, ImageRecord
from kvstore.prefill import ingest as engine
from kvstore.prefill.ingest import Meter
from kvstore.store import Store
from tests.ingesting import array, assert_clean, faults, ingest, options, pictures, query, rows
from tests.tiny import noise, painted

ROTATED = 6  # EXIF: the stored image is to be turned by 90 degrees clockwise


def encoded(image: Image.Image, kind: str, **wanted: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **wanted)
    return file.getvalue()


def bomb() -> bytes:
    """A PNG of a few dozen bytes that says it has 60000 x 60000 pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


def turned(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = ROTATED
    return encoded(image, "JPEG", exif=exif)


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each kind; the good ones among them begin with ``good``."""
    folder = tmp_path_factory.mktemp("strange")
    jpeg = encoded(noise((90, 70), 1), "JPEG")
    palette = noise((80, 60), 2).quantize(16)
    grey = Image.fromarray(np.arange(60 * 80, dtype=np.uint16).reshape(60, 80) * 13)
    files = {
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "empty.png": b"",
        "text.jpg": b"this is no image at all",
        "bomb.png": bomb(),
        "good-pixel.png": encoded(noise((1, 1), 3), "PNG"),
        "good-strip.png": encoded(noise((1, 4000), 4), "PNG"),
        "good-cmyk.jpg": encoded(noise((80, 60), 5).convert("CMYK"), "JPEG"),
        "good-palette.png": encoded(palette, "PNG", transparency=3),
        "good-grey16.png": encoded(grey, "PNG"),
        "good-turned.jpg": turned(noise((96, 64), 6)),
        "good-plain.png": encoded(noise((80, 60), 7), "PNG"),
        "good 'quote\" and\nline \U0001f600.png": encoded(noise((80, 60), 8), "PNG"),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    Path(os.fsdecode(os.fsencode(folder) + b"/good-\xff\xfe.png")).write_bytes(
        encoded(noise((80, 60), 9), "PNG")
    )
    return folder


BROKEN = {
    "truncated.jpg": "truncated",
    "empty.png": "empty",
    "text.jpg": "not-an-image",
    "bomb.png": "too-large",
}


def test_the_overview_stores_every_shape_and_quarantines_what_is_broken(
    strange: Path, tmp_path: Path
) -> None:
    store, outcome = ingest(tmp_path, strange, batch=4)
    assert faults(store) == BROKEN
    assert (outcome.images, outcome.quarantined) == (9, 4)
    stored = query(
        store, "select name, width, height from dataset_image join image using (image_id) "
        "where image_id in (select image_id from token_grid)"
    )  # fmt: skip
    sizes = {name: size for name, *size in stored}
    assert sizes["good-turned.jpg"] == [64, 96]
    assert sizes["good-strip.png"] == [1, 4000]
    assert {"good 'quote\" and\nline \U0001f600.png", "good-\\xff\\xfe.png"} <= set(sizes)
    assert len(sizes) == 9
    assert_clean(store)


def test_dynamic_resolution_refuses_what_its_processor_refuses(strange: Path, tmp_path: Path) -> None:
    store, outcome = ingest(tmp_path, strange, model="tiny-qwen", batch=2, sites=("value",), layers="0")
    assert faults(store) == BROKEN | {"good-strip.png": "aspect-ratio"}
    assert outcome.images == 8
    assert_clean(store)


def test_the_vectors_of_a_turned_image_are_those_of_its_upright_pixels(tmp_path: Path) -> None:
    """A PNG of the upright pixels gives the same; the grid is that of the upright image."""
    folder = tmp_path / "images"
    folder.mkdir()
    data = turned(painted((96, 64), (0, 0, 30, 20)))
    (folder / "a.jpg").write_bytes(data)
    upright = Image.open(io.BytesIO(data)).convert("RGB").transpose(Image.Transpose.ROTATE_270)
    upright.save(folder / "b.png")
    store, outcome = ingest(tmp_path / "store", folder)
    values = array(rows(store, outcome.run_id, "patch_kv"), "value").reshape(2, -1)
    assert np.array_equal(values[0], values[1])
    boxes = query(store, "select x1 / y1 from token_grid")
    np.testing.assert_allclose(boxes, 64 / 96)


def coco(root: Path, files: dict[str, bytes], names: list[str], annotations: list[dict[str, Any]]) -> Path:
    """COCO's layout under `root`; image i + 1 is `names[i]`, annotated as 96 x 64 pixels."""
    (root / "val2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    for name, data in files.items():
        (root / "val2017" / name).write_bytes(data)
    content = {
        "images": [{"id": i, "file_name": n, "width": 96, "height": 64} for i, n in enumerate(names, 1)],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": annotations,
    }
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    return root


def box(number: int, image: int, *bbox: float) -> dict[str, Any]:
    return {
        "id": number, "image_id": image, "category_id": 1, "bbox": bbox, "area": bbox[2] * bbox[3],
        "iscrowd": 0, "segmentation": [],
    }  # fmt: skip


def test_coco_that_names_files_outside_or_missing(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    noise((96, 64), 1).save(secret)
    names = ["there.png", "missing.png", str(secret), "../../secret.png", "link.png"]
    root = coco(tmp_path / "coco", {"there.png": encoded(noise((96, 64)), "PNG")}, names, [])
    (root / "val2017" / "link.png").symlink_to(secret)
    store, outcome = ingest(tmp_path / "store", root, dataset="coco")
    assert list(faults(store).values()) == ["missing", "unsafe-path", "unsafe-path", "unsafe-path"]
    assert outcome.images == 1
    assert_clean(store)


def test_annotations_are_turned_with_their_image_and_misfits_quarantined(tmp_path: Path) -> None:
    files = {"a.jpg": turned(noise((96, 64))), "b.png": encoded(noise((50, 50)), "PNG")}
    root = coco(
        tmp_path / "coco", files, ["a.jpg", "b.png"], [box(7, 1, 10, 20, 30, 5), box(8, 2, 0, 0, 9, 9)]
    )
    store, _ = ingest(tmp_path / "store", root, dataset="coco")
    # turned by 90 degrees clockwise, stored (x, y) of height 64 lies at (64 - y, x)
    assert query(store, "select object_id, x0, y0, x1, y1 from object") == [(7, 39, 10, 44, 40)]
    assert faults(store) == {"val2017/b.png": "changed"}
    assert_clean(store)


def test_equal_contents_are_stored_once_under_all_their_names(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "images", [(80, 60), (60, 60)])
    shutil.copy(folder / "00.png", folder / "copy.png")
    store, outcome = ingest(tmp_path / "store", folder)
    assert outcome.images == 2
    names = query(store, "select name, image_id, position from dataset_image order by position")
    assert names == [("00.png", 0, 0), ("01.png", 1, 1), ("copy.png", 0, 2)]
    assert query(store, "select count(*) from image") == [(2,)]
    assert_clean(store)


def test_a_mended_image_is_stored_by_the_next_ingest_and_leaves_quarantine(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "images", [(80, 60), (60, 60)])
    whole = (folder / "00.png").read_bytes()
    (folder / "00.png").write_bytes(whole[:400])
    store, _ = ingest(tmp_path / "store", folder)
    assert faults(store) == {"00.png": "truncated"}
    (folder / "00.png").write_bytes(whole)
    store, outcome = ingest(tmp_path / "store", folder)
    assert (outcome.images, outcome.already, outcome.quarantined) == (1, 1, 0)
    assert query(store, "select count(*) from token_grid") == [(2,)]
    assert_clean(store)


def test_a_smaller_limit_does_not_forget_what_is_in_quarantine(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "images", [(80, 60), (60, 60)])
    (folder / "zz.png").write_bytes(b"")
    ingest(tmp_path / "store", folder)
    store, outcome = ingest(tmp_path / "store", folder, limit=1)
    assert faults(store) == {"zz.png": "empty"}
    assert outcome.quarantined == 1


def test_a_file_that_changes_between_two_ingests_is_a_new_image_with_its_own_annotations(
    tmp_path: Path,
) -> None:
    files = {"a.png": encoded(noise((96, 64), 1), "PNG")}
    root = coco(tmp_path / "coco", files, ["a.png"], [box(7, 1, 10, 20, 30, 5)])
    ingest(tmp_path / "store", root, dataset="coco")
    noise((96, 64), 2).save(root / "val2017" / "a.png")
    store, outcome = ingest(tmp_path / "store", root, dataset="coco")
    assert outcome.images == 1
    assert query(store, "select object_id, image_id from object order by image_id") == [(7, 0), (7, 1)]
    assert query(store, "select name, image_id from dataset_image order by 2") == [
        ("val2017/a.png", 0),
        ("val2017/a.png", 1),
    ]
    assert_clean(store)


def test_a_file_that_changes_while_it_is_ingested_is_refused(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "images", [(80, 60), (60, 60)])
    plan, store = engine.plan(options(folder)), Store.open(tmp_path / "store", create=True)
    seen = engine.look(plan, Meter())
    noise((80, 60), 99).save(folder / "00.png")
    outcome = engine.ingest(store, plan, seen, Meter())
    assert (outcome.images, faults(store)) == (1, {"00.png": "changed"})
    assert_clean(store)


# ---------------------------------------------------------------------- numbers that cannot be stored


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`poisoned(what, when)`: the family's own encoder, its tokens for a predicate's images spoilt."""

    def poison(value: float, size: tuple[int, int] | None) -> None:
        family = models.load_config("tiny-onevision").family
        encode = family.encode

        def spoilt(model: Any, batch: Any, layers: Any) -> Any:
            made = encode(model, batch, layers)
            for item, tokens in zip(batch, made.tokens, strict=True):
                if size in (None, item.size):
                    tokens[5, 3] = value
            return made

        monkeypatch.setattr(family, "encode", spoilt)

    return poison


@pytest.mark.parametrize(
    ("value", "reason", "detail"),
    [
        (float("nan"), "non-finite", "value at layer 1, head 0, patch 0, component 0 is nan"),
        (1e6, "float16-overflow", "input at layer 0, head 0, patch 5, component 3 is beyond 65504"),
    ],
)
def test_one_image_that_cannot_be_stored_leaves_the_others_and_the_moments_alone(
    tmp_path: Path, poisoned: Any, value: float, reason: str, detail: str
) -> None:
    folder = pictures(tmp_path / "images", [(80, 60), (61, 60), (60, 60)])
    poisoned(value, (61, 60))
    store, outcome = ingest(tmp_path / "store", folder, batch=3)
    assert (outcome.images, faults(store)) == (2, {"01.png": reason})
    assert detail in query(store, "select detail from quarantine")[0][0]
    keys = array(rows(store, outcome.run_id, "patch_kv"), "key").astype(np.float64).reshape(2, -1, 32)
    found = query(store, "select n, mean_square from key_stat order by layer, head, patch")
    assert {n for n, _ in found} == {2}
    np.testing.assert_allclose([m for _, m in found], (keys**2).sum(-1).mean(0), rtol=1e-5)
    assert_clean(store)


def test_when_no_image_can_be_stored_the_run_is_empty_and_sound(tmp_path: Path, poisoned: Any) -> None:
    folder = pictures(tmp_path / "images", [(80, 60), (61, 60)])
    poisoned(float("inf"), None)
    store, outcome = ingest(tmp_path / "store", folder)
    assert (outcome.images, outcome.quarantined) == (0, 2)
    assert query(store, "select count(*) from key_stat") == [(0,)]
    assert query(store, "select state, images, rows from run") == [("done", 0, 0)]
    assert_clean(store)


def test_a_weight_beyond_float16_is_told_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pictures(tmp_path / "images", [(80, 60)])
    load = models.with_weights

    def heavy(*asked: Any) -> models.Loaded:
        loaded = load(*asked)
        with torch.no_grad():
            loaded.model.model.language_model.layers[3].self_attn.v_proj.bias[32 + 7] = 1e6
        return loaded

    monkeypatch.setattr(models, "with_weights", heavy)
    store, _ = ingest(tmp_path / "store", folder)
    reason, detail = query(store, "select reason, detail from quarantine")[0]
    assert reason == "float16-overflow"
    assert "value at layer 3, head 1, patch 0, component 7" in detail


def test_a_reader_of_a_recipe_that_fails_quarantines_its_image(tmp_path: Path) -> None:
    """`ImageRecord.read` may fail at the second reading as at the first."""
    plan = engine.plan(options(pictures(tmp_path / "images", [(80, 60), (60, 60)])))
    read, left = plan.dataset.images[0].read, [1]

    def once() -> bytes:
        if left[0] == 0:
            raise datasets.ImageError("missing", "it went away")
        left[0] -= 1
        return read()

    pair = [ImageRecord("00.png", once), plan.dataset.images[1]]
    plan = dataclasses.replace(plan, dataset=Dataset("folder", "", pair, plan.dataset.root))
    store = Store.open(tmp_path / "store", create=True)
    engine.ingest(store, plan, engine.look(plan, Meter()), Meter())
    assert faults(store) == {"00.png": "missing"}
    assert_clean(store)
