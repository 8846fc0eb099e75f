"""The galleries `matches` and `masks`: what they choose, what their SQL says of places, what is drawn."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from kvstore import masks, report
from kvstore.query import run_analysis
from kvstore.report import Box, Gallery, Missing, Ring, Shade
from kvstore.report.reading import Query
from kvstore.report.recipe import load, read
from tests.pairs import Pair, add_pairs
from tests.stores import make_store

WIDTH, HEIGHT = 40, 30  # of 3 x 4 patches of 10 pixels
SCORE = "insert into score values ('run', ?, ?, ?, ?, ?, ?, 0, 1, 9, 9)"


def with_images(folder: Path, images: int) -> Any:
    """A store whose images lie as files of a data set `folder` in `<folder>/images`."""
    made = make_store(folder / "store", images=images)
    (folder / "images").mkdir()
    with made.store.publish() as con:
        con.execute("update dataset set name = 'folder', root = ?", [str(folder / "images")])
        for number in made.image_ids:
            buffer = io.BytesIO()
            Image.new("RGB", (WIDTH, HEIGHT), (20 * number, 90, 60)).save(buffer, "PNG")
            (folder / f"images/{number}.png").write_bytes(buffer.getvalue())
            digest = hashlib.sha256(buffer.getvalue()).hexdigest()
            con.execute("update image set sha256 = ? where image_id = ?", [digest, number])
    return made


def blocks(store: Any, name: str) -> list[Any]:
    with store.connect() as con:
        return list(load(read(name)).build(Query(con)))


def frame(store: Any, name: str, **params: Any) -> pl.DataFrame:
    table = pl.from_arrow(run_analysis(store, name, params))
    assert isinstance(table, pl.DataFrame)
    return table


# ------------------------------------------------------------------------------------------ matches


@pytest.fixture
def matched(tmp_path: Path) -> Any:
    """Five pairs with one keypoint each; layer 0 head 1 finds the target patches 6, 5, 7, 4 and 11.

    The truth is (25, 15), the centre of patch 6, and the object 40 pixels wide: errors 0, 1/4, 1/4, 1/2
    and sqrt(10² + 10²) / 40.
    """
    made = with_images(tmp_path, 2)
    add_pairs(made, [Pair(1, 2, {f"eye_{n}": ((5.0, 5.0), (25.0, 15.0))}) for n in range(5)])
    found = {("value", 0, 1): [6, 5, 7, 4, 11], ("value", 0, 0): [0] * 5, ("value", 1, 0): [6, 6, 6, 6, 0]}
    with made.store.publish() as con:
        for (site, layer, head), patches in {**found, ("input", 0, None): [5] * 5}.items():
            for pair, patch in enumerate(patches):
                x, y = 10 * (patch % 4) + 5, 10 * (patch // 4) + 5
                con.execute(
                    "insert into match values ('run', 'correspondence', ?, ?, ?, ?, ?, ?, ?, ?, 0.5)",
                    [pair + 1, f"eye_{pair}", site, layer, head, patch, x, y],
                )
        for site, layer, head, value in (
            ("value", 0, 0, 0.0),
            ("value", 0, 1, 0.9),
            ("value", 1, 0, 0.8),
            ("input", 0, None, 0.1),
        ):
            con.execute(SCORE, ["correspondence", "pck@0.10", site, layer, head, value])
    return made.store


def test_matches_are_chosen_from_best_to_worst_at_even_steps(matched: Any) -> None:
    rows = frame(matched, "match_gallery", run="run", pairs=3).filter(pl.col("layer") == 0, site="value")
    assert rows.select("place", "pairs", "pair_id").rows()[::2] == [(1, 5, 1), (5, 5, 4)]
    assert rows["place"].to_list() == [1, 3, 5]
    assert rows["error"].to_list() == pytest.approx([0, 0.25, 0.5])


def test_each_layer_is_shown_by_its_best_head_after_the_input(matched: Any) -> None:
    rows = frame(matched, "match_gallery", run="run", pairs=1)
    assert rows.select("site", "layer", "head").rows() == [
        ("input", 0, None),
        ("value", 0, 1),
        ("value", 1, 0),
    ]
    assert set(rows.select("best_site", "best_layer", "best_head").rows()) == {("value", 0, 1)}


def test_layers_are_shown_at_even_steps_first_and_last_included(matched: Any) -> None:
    with matched.publish() as con:
        for layer in range(2, 9):
            con.execute("insert into match select * replace (? as layer) from match where layer = 1", [layer])
            con.execute(SCORE, ["correspondence", "pck@0.10", "value", layer, 0, 0.1])
    rows = frame(matched, "match_gallery", run="run", pairs=1, layers=3)
    assert rows.filter(site="value")["layer"].to_list() == [0, 4, 8]


def test_a_match_is_drawn_where_its_patch_lies_and_coloured_by_whether_it_counts(matched: Any) -> None:
    (gallery,) = blocks(matched, "matches")
    assert isinstance(gallery, Gallery)
    assert gallery.group == "model · run"
    assert "5 pairs" in gallery.caption
    assert "layer 0 head 1" in gallery.caption
    best = gallery.strips[0]
    assert best.heading == "Eye 0 of thing (1 of 5 by error)"
    source, entering, right = best.tiles[:3]
    assert source.marks == (Box(0, 0, 10, 10, report.BLUE), Ring(5, 5, 0, report.GREEN))
    truth = Ring(25, 15, 4, report.GREEN)  # 0.10 of 40 pixels
    assert entering.marks == (truth, Box(10, 10, 20, 20, report.RED))
    assert right.marks == (truth, Box(20, 10, 30, 20, report.BLUE))
    assert entering.label == "input: wrong, off by 0.25"
    assert right.label == "layer 0 head 1: right, off by 0.00"


def test_each_variant_of_a_run_has_a_gallery_and_pixels_are_points(matched: Any) -> None:
    with matched.publish() as con:
        con.execute(
            "insert into match select * replace ('correspondence-bilinear' as probe, x + 3 as x) from match"
        )
        for head in (0, 1):
            con.execute(SCORE, ["correspondence-bilinear", "pck@0.10", "value", 0, head, 0.5 * head])
    patches, pixels = blocks(matched, "matches")
    assert [one.title.rpartition(" ")[2] for one in (patches, pixels)] == ["patch", "pixel"]
    assert "the pixel found by the best head" in pixels.caption
    truth = Ring(25, 15, 4, report.GREEN)
    assert pixels.strips[0].tiles[1].marks == (truth, Ring(28, 15, 0, report.BLUE))  # 3 / 40 off
    assert pixels.strips[0].tiles[1].label == "layer 0 head 1: right, off by 0.07"


def test_matches_without_their_images_say_so(matched: Any, tmp_path: Path) -> None:
    (tmp_path / "images/2.png").write_bytes(b"another")
    (missing,) = blocks(matched, "matches")
    assert isinstance(missing, Missing)
    assert "5 of the pairs chosen cannot be shown: '2.png' of set has changed" in missing.what


# -------------------------------------------------------------------------------------------- masks


def rle(*boxes: tuple[int, int, int, int]) -> str:
    """The mask of boxes (x0, y0, x1, y1)."""
    pixels = np.zeros((HEIGHT, WIDTH), bool)
    for x0, y0, x1, y1 in boxes:
        pixels[y0:y1, x0:x1] = True
    return masks.from_array(pixels)


OBJECT = "insert into object values ('set', ?, ?, ?, 0, 0, 0, 0, 0, ?, ?)"
MASK = (
    "insert into mask (run_id, probe, image_id, label, object_id, number, site, layer, head, mask, predicted,"
    " truth, shared, valid) values ('run', 'cosegmentation', ?, 'cat', null, 0, ?, ?, ?, ?, 100, 100, ?, 9)"
)


@pytest.fixture
def segmented(tmp_path: Path) -> Any:
    """Six images with a cat of 10 x 10 pixels, a dog, and a crowd of cats.

    Layer 0 head 0 takes 100 pixels, of which 15 are true in image 1, 30 in image 2, and so on.
    """
    made = with_images(tmp_path, 6)
    with made.store.publish() as con:
        for image in made.image_ids:
            con.execute(OBJECT, [10 * image, image, "cat", False, rle((10, 10, 20, 20))])
            con.execute(OBJECT, [10 * image + 1, image, "dog", False, rle((0, 0, 5, 5))])
            con.execute(OBJECT, [10 * image + 2, image, "cat", True, rle((30, 0, 40, 10))])
            shared = 15 * image
            taken = rle((10, 10, 20, 20))
            con.execute(MASK, [image, "value", 0, 0, taken, shared])
            con.execute(MASK, [image, "value", 0, 1, taken, 100 - shared])
            con.execute(MASK, [image, "input", 0, None, rle(), 0])
        con.execute("insert into void values ('set', 5, ?)", [rle((0, 20, 10, 30))])
        for site, head, value in (("value", 0, 0.5), ("value", 1, 0.4), ("input", None, 0.1)):
            con.execute(SCORE, ["cosegmentation", "jaccard", site, 0, head, value])
    return made.store


def test_predictions_are_chosen_in_the_middle_of_equal_parts_by_iou(segmented: Any) -> None:
    rows = frame(segmented, "mask_gallery", run="run", probe="cosegmentation", metric="jaccard")
    best = rows.filter(site="value")
    assert best.select("place", "among").rows() == [(2, 6), (4, 6), (6, 6)]
    # 15 n of 100 pixels of each are shared: 15 n / (200 - 15 n).
    assert best["iou"].to_list() == pytest.approx([30 / 170, 60 / 140, 90 / 110])
    assert best["head"].to_list() == [0, 0, 0]


def test_truth_is_of_the_label_without_crowds_and_void_has_them(segmented: Any) -> None:
    gallery, *_ = blocks(segmented, "masks")
    assert gallery.title == "Co-segmentation"
    last = gallery.strips[2]
    assert last.heading == "cat (6 of 6, from the worst)"
    image, truth, entering, predicted = last.tiles
    assert image.marks == ()
    green, grey = truth.marks
    assert green == Shade(rle((10, 10, 20, 20)), report.GREEN, spot=True)
    assert grey.mask == rle((30, 0, 40, 10))
    assert predicted.marks == (Shade(rle((10, 10, 20, 20)), report.BLUE, spot=True),)
    assert (entering.label, predicted.label) == ("input: 0.00", "layer 0 head 0: 0.82")


def test_the_void_of_the_data_set_is_joined_by_the_crowds(segmented: Any) -> None:
    rows = frame(segmented, "mask_gallery", run="run", probe="cosegmentation", metric="jaccard", items=6)
    (void,) = rows.filter(place=5, site="value")["void"].to_list()
    assert masks.union(void) == rle((30, 0, 40, 10), (0, 20, 10, 30))


def test_predicted_patches_are_shown_as_their_pixels(tmp_path: Path) -> None:
    made = with_images(tmp_path, 1)
    with made.store.publish() as con:
        con.execute(OBJECT, [1, 1, "cat", False, rle((10, 10, 20, 20))])
        con.execute(
            "insert into segment values ('run', 'foreground', 1, 'value', 0, 0, '010001000000',"
            " '000001000000')"
        )
        con.execute(SCORE, ["foreground", "iou", "value", 0, 0, 0.5])
    (gallery,) = blocks(made.store, "masks")
    (strip,) = gallery.strips
    assert strip.tiles[1].marks[0].mask == rle((10, 10, 20, 20))
    assert strip.tiles[2].marks[0].mask == rle((10, 0, 20, 20))
    assert strip.tiles[2].label == "layer 0 head 0: 0.50"


# ------------------------------------------------------------------------------------------- builds


def test_a_gallery_is_built_again_when_its_images_are_back_and_only_then(
    matched: Any, tmp_path: Path
) -> None:
    aside = tmp_path / "aside"
    (tmp_path / "images").rename(aside)

    def built() -> str:
        (outcome,) = report.build(matched, ["matches"])
        assert outcome.error == ""
        return outcome.result

    page = matched.root / "reports/matches.html"
    assert built() == "built"
    assert "Put the images back" in page.read_text()
    assert built() == "unchanged"
    aside.rename(tmp_path / "images")
    assert [one.state for one in report.status(matched) if one.report == "matches"] == ["stale"]
    assert built() == "built"
    assert "Put the images back" not in page.read_text()
    (tmp_path / "images").rename(aside)
    assert built() == "unchanged"  # what it shows is of these contents, wherever the files are


def test_an_image_stands_in_the_page_once_and_no_chart_library_with_it(matched: Any) -> None:
    (outcome,) = report.build(matched, ["matches"])
    page = (matched.root / "reports/matches.html").read_text()
    assert outcome.result == "built"
    assert page.count("data:image/jpeg") == 2
    assert page.count("<use ") == 5 * 4
    assert len(page) < 100_000  # Vega alone is 800 kB
