"""SPair-71k: genuine annotations, masks by hand, and drawn scenes written in its layout and read back."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kvstore import datasets, masks
from kvstore.contracts import Annotations, Dataset, Object
from kvstore.errors import DatasetError, ImageError
from kvstore.export import export
from kvstore.images import header
from tests import samples
from tests.ingesting import assert_clean, ingest, query
from tests.tiny import noise

PAIRS = (
    "000718-2008_002515-2008_003395:bicycle",
    "000001-2008_002719-2008_004100:aeroplane",
    "000006-2008_002719-2008_007604:aeroplane",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The genuine annotations, with noise for the photographs, which are not among the samples."""
    root = shutil.copytree(samples.folder("SPair-71k"), tmp_path / "spair")
    (root / "Layout" / "large").mkdir()
    (root / "Layout" / "large" / "test.txt").write_text("".join(f"{name}\n" for name in PAIRS))
    for number, path in enumerate(sorted(root.glob("ImageAnnotation/*/*.json"))):
        told = json.loads(path.read_text())
        picture = root / "JPEGImages" / path.parent.name / told["filename"]
        picture.parent.mkdir(parents=True, exist_ok=True)
        noise((told["image_width"], told["image_height"]), number).save(picture)
    return root


def annotated(dataset: Dataset, place: int) -> Annotations:
    record = dataset.images[place]
    head = header(record.read())
    return record.annotate(head.width, head.height, head.orientation)


# ------------------------------------------------------------------------------------------ genuine samples


def test_images_are_those_of_the_pairs_once_each_in_the_layouts_order(root: Path) -> None:
    dataset = datasets.load("spair71k", root)
    assert [record.name for record in dataset.images] == [
        "JPEGImages/bicycle/2008_002515.jpg",
        "JPEGImages/bicycle/2008_003395.jpg",
        "JPEGImages/aeroplane/2008_002719.jpg",
        "JPEGImages/aeroplane/2008_004100.jpg",
        "JPEGImages/aeroplane/2008_007604.jpg",
    ]
    assert (dataset.split, [pair.pair_id for pair in dataset.pairs]) == ("test", [718, 1, 6])


def test_a_pair_is_as_its_annotation_tells(root: Path) -> None:
    pair = datasets.load("spair71k", root).pairs[1]
    assert (pair.source, pair.target) == (
        "JPEGImages/aeroplane/2008_002719.jpg",
        "JPEGImages/aeroplane/2008_004100.jpg",
    )
    assert (pair.category, pair.source_box, pair.target_box) == (
        "aeroplane",
        (210, 34, 475, 250),
        (36, 92, 500, 200),
    )
    assert [(point.name, point.source, point.target) for point in pair.keypoints] == [
        ("0", (212, 153), (39, 145)),
        ("7", (300, 130), (364, 171)),
        ("11", (330, 127), (416, 173)),
    ]


def test_an_image_has_the_object_and_keypoints_of_its_annotation(root: Path) -> None:
    dataset = datasets.load("spair71k", root)
    (thing,) = annotated(dataset, 2).objects
    assert (thing.object_id, thing.category, thing.box, thing.mask) == (
        3,
        "aeroplane",
        (210, 34, 475, 250),
        None,
    )
    assert thing.area == 265 * 216
    told = json.loads((root / "ImageAnnotation" / "aeroplane" / "2008_002719.json").read_text())["kps"]
    assert {point.name: [point.x, point.y] for point in thing.keypoints} == {
        name: at for name, at in told.items() if at is not None
    }
    assert len(thing.keypoints) == 20
    assert {point.visible for point in thing.keypoints} == {2}


def test_the_keypoints_of_pairs_are_those_of_their_images(root: Path) -> None:
    dataset = datasets.load("spair71k", root)
    things = {record.name: annotated(dataset, n).objects[0] for n, record in enumerate(dataset.images)}
    seen = {name: {p.name: (p.x, p.y) for p in thing.keypoints} for name, thing in things.items()}
    for pair in dataset.pairs:
        assert (pair.source_box, pair.target_box) == (things[pair.source].box, things[pair.target].box)
        shared = seen[pair.source].keys() & seen[pair.target].keys()
        assert shared == {point.name for point in pair.keypoints}
        for point in pair.keypoints:
            assert (point.source, point.target) == (
                seen[pair.source][point.name],
                seen[pair.target][point.name],
            )


def segmented(root: Path, values: np.ndarray, name: str = "aeroplane/2008_002719") -> Object:
    """The object of an image whose class map is `values`."""
    path = root / "Segmentation" / f"{name}.png"
    path.parent.mkdir(parents=True)
    image = Image.fromarray(values)
    if values.ndim == 2:
        image.putpalette(bytes(768))
    image.save(path)
    return annotated(datasets.load("spair71k", root), 2).objects[0]


def test_the_mask_is_what_the_keypoints_lie_on_within_the_box(root: Path) -> None:
    values = np.zeros((333, 500), np.uint8)
    values[100:300, 0:480] = 1  # beyond the box (210, 34, 475, 250) on three sides
    values[30:60, 380:400] = 15  # one keypoint (387, 40) is on another class
    values[150:160, 200:220] = 255  # and one (212, 153) on the border
    thing = segmented(root, values)
    expected = np.zeros((333, 500), bool)
    expected[100:250, 209:475] = True  # VOC's first pixel is 1
    expected[150:160, 209:220] = False
    assert thing.mask
    np.testing.assert_array_equal(masks.to_array(thing.mask), expected)
    assert thing.area == 150 * 266 - 10 * 11


@pytest.mark.parametrize(
    "values",
    [np.zeros((333, 500), np.uint8), np.full((333, 500), 255, np.uint8), np.ones((333, 500, 3), np.uint8)],
    ids=["background", "void", "colours"],
)
def test_a_map_that_tells_nothing_gives_no_mask(root: Path, values: np.ndarray) -> None:
    assert segmented(root, values).mask is None


def test_a_map_of_another_size_is_refused(root: Path) -> None:
    with pytest.raises(ImageError, match="500 x 332 pixels, but the file has 500 x 333"):
        segmented(root, np.ones((332, 500), np.uint8))


# ------------------------------------------------------------------------------- what is missing, or is wrong


@pytest.mark.parametrize("place", ["Layout/large", "PairAnnotation/test", "ImageAnnotation", "JPEGImages"])
def test_what_is_missing_is_told_with_where_to_get_it(root: Path, place: str) -> None:
    shutil.rmtree(root / place)
    with pytest.raises(DatasetError) as caught:
        datasets.load("spair71k", root)
    assert f"no {place}" in str(caught.value)
    assert "curl -O http://cvlab.postech.ac.kr/research/SPair-71k/data/SPair-71k.tar.gz" in str(caught.value)
    assert f"-C {root} --strip-components 1" in str(caught.value)


def test_another_split_is_looked_for_by_its_name(root: Path) -> None:
    with pytest.raises(DatasetError, match=r"no Layout/large/trn\.txt in"):
        datasets.load("spair71k", root, "trn")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda told: told.pop("kps_ids"), "KeyError"),
        (lambda told: told["src_kps"].pop(), "shorter"),
        (lambda told: told["src_bndbox"].pop(), "not enough values"),
        (lambda told: told.update(trg_kps=None), "TypeError"),
    ],
)
def test_a_pair_that_is_none_is_told_with_its_file(
    root: Path, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    path = root / "PairAnnotation" / "test" / f"{PAIRS[1]}.json"
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))
    with pytest.raises(DatasetError, match=f"{PAIRS[1]}.json is no annotation of SPair-71k") as caught:
        datasets.load("spair71k", root)
    assert said in str(caught.value)


def test_a_pair_that_is_listed_and_not_there_is_told(root: Path) -> None:
    (root / "PairAnnotation" / "test" / f"{PAIRS[2]}.json").unlink()
    with pytest.raises(DatasetError, match=r"cannot read .*000006-.*: No such file"):
        datasets.load("spair71k", root)


def test_an_image_that_was_resized_is_refused(root: Path) -> None:
    noise((250, 166), 1).save(root / "JPEGImages" / "aeroplane" / "2008_002719.jpg")
    with pytest.raises(ImageError, match="annotated at 500 x 333 pixels, but the file has 250 x 166"):
        annotated(datasets.load("spair71k", root), 2)


def test_pairs_and_keypoints_reach_the_store(root: Path, tmp_path: Path) -> None:
    store, outcome = ingest(tmp_path / "store", root, dataset="spair71k", layers="1")
    assert (outcome.images, outcome.quarantined) == (5, 0)
    assert query(store, "select pair_id, count(*) from pair_keypoint group by all order by all") == [
        (1, 3),
        (6, 5),
        (718, 2),
    ]
    assert query(store, "select target_x1 - target_x0 from pair order by pair_id") == [(464,), (332,), (151,)]
    assert_clean(store)


# ------------------------------------------------------------------------------------ nothing without a word


def changed(root: Path, place: str, **instead: Any) -> None:
    (path,) = root.glob(place)
    path.write_text(json.dumps(json.loads(path.read_text()) | instead))


def told_of(dataset: Dataset) -> set[tuple[str, int, bool]]:
    return {(note.place, note.count, note.lost) for note in dataset.notes}


def test_a_list_with_a_byte_order_mark_and_a_pair_twice(root: Path) -> None:
    lines = "\r\n".join((*PAIRS, "", PAIRS[1]))
    (root / "Layout" / "large" / "test.txt").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    dataset = datasets.load("spair71k", root)
    assert [pair.pair_id for pair in dataset.pairs] == [718, 1, 6]
    assert told_of(dataset) == {(f"test.txt, {PAIRS[1]}", 1, False)}


@pytest.mark.parametrize("colon", ["_", "\uf03a", ""])
def test_files_without_colons_as_windows_unpacks_them(root: Path, colon: str) -> None:
    whole = datasets.load("spair71k", root)
    for path in (root / "PairAnnotation" / "test").iterdir():
        path.rename(path.with_name(path.name.replace(":", colon)))
    assert datasets.load("spair71k", root).pairs == whole.pairs


def test_a_keypoint_without_a_place_in_one_image_or_met_twice_is_lost(root: Path) -> None:
    file = f"PairAnnotation/test/{PAIRS[1]}.json"
    changed(root, file, kps_ids=["0", "7", "7"], src_kps=[None, [1, 2], [3, 4]], trg_kps=[[0, 0]] * 3)
    dataset = datasets.load("spair71k", root)
    assert [(point.name, point.source) for point in dataset.pairs[1].keypoints] == [("7", (1, 2))]
    assert told_of(dataset) == {(f"{PAIRS[1]}.json, 0", 1, True), (f"{PAIRS[1]}.json, 7", 1, True)}


def test_a_pair_with_the_number_of_another_is_lost(root: Path) -> None:
    changed(root, f"PairAnnotation/test/{PAIRS[2]}.json", pair_id=718)
    dataset = datasets.load("spair71k", root)
    assert [pair.pair_id for pair in dataset.pairs] == [718, 1]
    assert told_of(dataset) == {(f"{PAIRS[2]}, pair_id 718", 1, True)}


def tried(root: Path) -> tuple[Dataset | None, str]:
    """The data set, or what is said of it."""
    try:
        return datasets.load("spair71k", root), ""
    except DatasetError as error:
        return None, str(error)


STRANGE = [
    None,
    "x",
    [],
    {},
    -1,
    float("inf"),
    float("nan"),
    "\ud83d",
    "x" * 100_000,
    True,
    2**80,
    [None] * 4,
]


@pytest.mark.parametrize("field", ["pair_id", "category", "src_imname", "src_bndbox", "trg_kps", "kps_ids"])
@pytest.mark.parametrize("value", STRANGE, ids=range(len(STRANGE)))
def test_a_strange_value_of_a_pair_is_one_line_or_a_value_that_can_be_stored(
    root: Path, field: str, value: Any
) -> None:
    changed(root, f"PairAnnotation/test/{PAIRS[1]}.json", **{field: value})
    loaded, said = tried(root)
    if loaded is None:
        assert PAIRS[1] in said
        assert len(said) < 300
        assert "\n" not in said
        return
    pair = loaded.pairs[1]
    texts = {"category": pair.category, "src_imname": pair.source.rpartition("/")[2]}
    allowed = {"x": "x", "\ud83d": "\\ud83d", "x" * 100_000: "x" * 100_000}
    assert (field == "pair_id" and pair.pair_id == value == -1) or texts[field] == allowed[value]


@pytest.mark.parametrize("field", ["image_width", "bndbox", "kps"])
@pytest.mark.parametrize("value", STRANGE, ids=range(len(STRANGE)))
def test_a_strange_value_of_an_image_spoils_it_alone(root: Path, field: str, value: Any) -> None:
    changed(root, "ImageAnnotation/aeroplane/2008_002719.json", **{field: value})
    dataset = datasets.load("spair71k", root)
    assert len(annotated(dataset, 3).objects) == 1
    if (field, value) == ("kps", {}):
        assert annotated(dataset, 2).objects[0].keypoints == ()
    else:
        with pytest.raises(ImageError):
            annotated(dataset, 2)


def test_objects_without_a_mask_are_told_where_there_are_masks(root: Path) -> None:
    assert annotated(datasets.load("spair71k", root), 2).notes == ()
    assert segmented(root, np.ones((333, 500), np.uint8)).mask
    found = annotated(datasets.load("spair71k", root), 3)
    assert [(note.kind, note.place, note.lost) for note in found.notes] == [
        ("objects without a map in Segmentation", "JPEGImages/aeroplane/2008_004100.jpg", True)
    ]


def test_a_keypoint_out_of_its_image_is_not_counted_from_the_other_side(root: Path) -> None:
    values = np.zeros((333, 500), np.uint8)
    values[-1, -1] = 5
    values[0, 0] = 7
    changed(root, "ImageAnnotation/aeroplane/2008_002719.json", kps={"0": [-1, -1]}, bndbox=[0, 0, 500, 333])
    mask = segmented(root, values).mask
    assert mask
    np.testing.assert_array_equal(masks.to_array(mask), values == 7)


# ------------------------------------------------------------------------------ shapes as SPair-71k, and back


LIMIT = 40


@pytest.fixture(scope="module", params=[("test", "test"), ("train", "trn"), ("val", "val")])
def written(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Dataset]:
    """Where drawn scenes were written, their split there, and what was written."""
    split, theirs = request.param
    target = tmp_path_factory.mktemp("exports") / "spair"
    return target, theirs, export("shapes", "spair71k", target, split=split, limit=LIMIT)


def test_the_pairs_read_back_are_those_drawn(written: tuple[Path, str, Dataset]) -> None:
    folder, split, drawn = written
    read = datasets.load("spair71k", folder, split)
    bytes_of = {record.name: record.read() for record in (*drawn.images, *read.images)}
    within = [pair for pair in drawn.pairs if {pair.source, pair.target} <= bytes_of.keys()]
    assert len(within) == len(read.pairs) > LIMIT / 2
    for ours, theirs in zip(within, read.pairs, strict=True):
        assert (theirs.pair_id, theirs.category) == (ours.pair_id, ours.category)
        assert (theirs.source_box, theirs.target_box) == (ours.source_box, ours.target_box)
        assert theirs.keypoints == ours.keypoints
        assert bytes_of[theirs.source] == bytes_of[ours.source]
        assert bytes_of[theirs.target] == bytes_of[ours.target]


def test_the_objects_read_back_are_those_drawn(written: tuple[Path, str, Dataset]) -> None:
    folder, split, drawn = written
    read = datasets.load("spair71k", folder, split)
    of = {record.read(): annotated(drawn, place).objects for place, record in enumerate(drawn.images)}
    ids = set()
    for place, record in enumerate(read.images):
        (theirs,) = annotated(read, place).objects
        ids.add(theirs.object_id)
        (ours,) = (
            thing
            for thing in of[record.read()]
            if (thing.category, thing.box) == (theirs.category, theirs.box)
        )
        assert record.name.startswith(f"JPEGImages/{ours.category}/")
        assert (theirs.mask, theirs.area) == (ours.mask, ours.area)
        seen = {point for point in ours.keypoints if point.visible == 2}
        assert set(theirs.keypoints) == seen
    assert len(ids) == len(read.images)


def test_the_files_are_such_as_spairs_own_readers_take(written: tuple[Path, str, Dataset]) -> None:
    folder, split, _ = written
    genuine = samples.folder("SPair-71k")
    keys = json.loads((genuine / "PairAnnotation" / "test" / f"{PAIRS[1]}.json").read_text()).keys()
    for name in (folder / "Layout" / "large" / f"{split}.txt").read_text().splitlines():
        told = json.loads((folder / "PairAnnotation" / split / f"{name}.json").read_text())
        assert keys <= told.keys()
        number, source, target = name.split("-")
        target, category = target.split(":")
        assert (int(number), category) == (told["pair_id"], told["category"])
        for end, stem in (("src", source), ("trg", target)):
            picture = folder / "JPEGImages" / category / told[f"{end}_imname"]
            assert picture.stem == stem
            assert [*Image.open(io.BytesIO(picture.read_bytes())).size, 3] == told[f"{end}_imsize"]
            about = json.loads((folder / "ImageAnnotation" / category / f"{stem}.json").read_text())
            assert len(about["kps"]) == 30
            assert [about["kps"][key] for key in told["kps_ids"]] == told[f"{end}_kps"]
        assert all(0 <= int(key) < 30 for key in told["kps_ids"])


def test_a_data_set_without_pairs_cannot_be_written_so(tmp_path: Path) -> None:
    for wanted, said in ({"split": "clips"}, "shapes clips"), ({"limit": 1}, "within the 1 images"):
        with pytest.raises(DatasetError, match=said):
            export("shapes", "spair71k", tmp_path / "new", **wanted)
    assert list(tmp_path.iterdir()) == []


def test_spair_itself_written_anew_keeps_its_keypoints(root: Path, tmp_path: Path) -> None:
    ours = export("spair71k", "spair71k", tmp_path / "new", root=root)
    theirs = datasets.load("spair71k", tmp_path / "new")
    assert [pair.keypoints for pair in theirs.pairs] == [pair.keypoints for pair in ours.pairs]
    for place in range(5):
        (one,), (other,) = annotated(ours, place).objects, annotated(theirs, place).objects
        assert (other.box, set(other.keypoints)) == (one.box, set(one.keypoints))
