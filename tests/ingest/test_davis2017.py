"""DAVIS 2017: genuine clips of both kinds of mask, and drawn clips written in its layout and read back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kvstore import datasets, masks, recipes
from kvstore.contracts import Annotations, Clip, Dataset, ImageRecord, Object
from kvstore.errors import DatasetError, ImageError
from kvstore.export import export
from kvstore.images import decode, header
from tests import samples
from tests.ingesting import assert_clean, ingest, query
from tests.tiny import noise

CLIPS = ("tennis", "car-shadow", "bear")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The first two frames of the clips that are among the samples, and a list of those."""
    genuine, root = samples.folder("DAVIS"), tmp_path / "davis"
    for clip in CLIPS:
        for kind, ending in (("JPEGImages", "jpg"), ("Annotations", "png")):
            (root / kind / "480p" / clip).mkdir(parents=True)
            for number in range(2):
                file = f"{kind}/480p/{clip}/{number:05d}.{ending}"
                shutil.copy(genuine / file, root / file)
    listed(root, "val", *CLIPS)
    return root


def listed(root: Path, split: str, *clips: str) -> None:
    path = root / "ImageSets" / "2017" / f"{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{clip}\n" for clip in clips))


def annotated(dataset: Dataset, place: int) -> Annotations:
    record = dataset.images[place]
    head = header(record.read())
    return record.annotate(head.width, head.height, head.orientation)


def values(root: Path, clip: str, number: int) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(root / "Annotations" / "480p" / clip / f"{number:05d}.png"))


# ------------------------------------------------------------------------------------------ genuine samples


def test_clips_are_those_listed_with_their_frames_in_order(root: Path) -> None:
    dataset = datasets.load("davis2017", root)
    assert [(clip.name, len(clip.frames)) for clip in dataset.clips] == [(name, 2) for name in CLIPS]
    assert dataset.clips[0].frames == (
        "JPEGImages/480p/tennis/00000.jpg",
        "JPEGImages/480p/tennis/00001.jpg",
    )
    names = [name for clip in dataset.clips for name in clip.frames]
    assert [record.name for record in dataset.images] == names


def test_objects_and_void_are_the_values_of_a_palette_mask(root: Path) -> None:
    dataset = datasets.load("davis2017", root)
    for number, areas in ((0, [17015, 362]), (1, [17675, 916])):  # pixels of tennis, counted with numpy
        found, truth = annotated(dataset, number), values(root, "tennis", number)
        assert [(thing.object_id, thing.category, thing.area) for thing in found.objects] == [
            (1, "object", areas[0]),
            (2, "object", areas[1]),
        ]
        for thing in found.objects:
            assert thing.mask
            np.testing.assert_array_equal(masks.to_array(thing.mask), truth == thing.object_id)
            ys, xs = np.nonzero(truth == thing.object_id)
            assert thing.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert found.void
        np.testing.assert_array_equal(masks.to_array(found.void), truth == 255)


def test_255_is_the_object_of_a_grey_mask(root: Path) -> None:
    found = annotated(datasets.load("davis2017", root), 2)
    (thing,) = found.objects
    assert (thing.object_id, thing.area, found.void) == (1001, 41790, None)
    assert thing.mask
    np.testing.assert_array_equal(masks.to_array(thing.mask), values(root, "car-shadow", 0) == 255)


def test_object_ids_stay_within_a_clip_and_differ_between_clips(root: Path) -> None:
    dataset = datasets.load("davis2017", root)
    ids = [[thing.object_id for thing in annotated(dataset, place).objects] for place in range(6)]
    assert ids == [[1, 2], [1, 2], [1001], [1001], [2001], [2001]]
    assert annotated(dataset, 4).void is None


def test_clips_and_masks_reach_the_store(root: Path, tmp_path: Path) -> None:
    store, outcome = ingest(tmp_path / "store", root, dataset="davis2017", layers="1", limit=4)
    assert (outcome.images, outcome.quarantined) == (4, 0)
    assert query(store, "select clip, number from frame order by all") == [
        ("car-shadow", 0),
        ("car-shadow", 1),
        ("tennis", 0),
        ("tennis", 1),
    ]
    assert query(store, "select object_id, count(*) from object group by all order by all") == [
        (1, 2),
        (2, 2),
        (1001, 2),
    ]
    assert query(store, "select count(*) from void") == [(2,)]
    assert_clean(store)


# ------------------------------------------------------------------------------- what is missing, or is wrong


def test_a_clip_that_is_listed_and_not_there_is_told_by_its_name(root: Path) -> None:
    shutil.copy(samples.folder("DAVIS") / "ImageSets" / "2017" / "val.txt", root / "ImageSets" / "2017")
    with pytest.raises(DatasetError) as caught:
        datasets.load("davis2017", root)
    assert "no JPEGImages/480p/bike-packing" in str(caught.value)
    assert "csergi/share/davis/DAVIS-2017-trainval-480p.zip" in str(caught.value)
    assert "list only those" in str(caught.value)


def test_masks_that_are_missing_are_told(root: Path) -> None:
    shutil.rmtree(root / "Annotations" / "480p" / "car-shadow")
    with pytest.raises(DatasetError, match="no Annotations/480p/car-shadow"):
        datasets.load("davis2017", root)


def test_a_split_that_is_not_listed_is_told_with_its_archive(root: Path) -> None:
    for split, archive in (("train", "2017-trainval-480p.zip"), ("test-dev", "2017-test-dev-480p.zip")):
        with pytest.raises(DatasetError, match=rf"no ImageSets/2017/{split}\.txt in .*{archive}"):
            datasets.load("davis2017", root, split)


def test_a_frame_without_a_mask_is_an_error_but_in_test_dev(root: Path) -> None:
    (root / "Annotations" / "480p" / "tennis" / "00001.png").unlink()
    with pytest.raises(ImageError) as caught:
        annotated(datasets.load("davis2017", root), 1)
    assert caught.value.reason == "missing"
    listed(root, "test-dev", "tennis")
    dataset = datasets.load("davis2017", root, "test-dev")
    assert len(annotated(dataset, 0).objects) == 2
    assert annotated(dataset, 1) == Annotations()


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (Image.new("P", (427, 240)), "changed"),
        (Image.new("RGB", (854, 480)), "unreadable"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(root: Path, mask: Image.Image, reason: str) -> None:
    mask.save(root / "Annotations" / "480p" / "tennis" / "00000.png")
    with pytest.raises(ImageError, match=r"tennis/00000\.png") as caught:
        annotated(datasets.load("davis2017", root), 0)
    assert caught.value.reason == reason


# ---------------------------------------------------------------------------- shapes as DAVIS 2017, and back


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    """Where drawn clips were written, and what was: two clips, and the first frames of a third."""
    target = tmp_path_factory.mktemp("exports") / "davis"
    return target, export("shapes", "davis2017", target, split="clips", limit=36)


def test_the_clips_read_back_are_those_drawn(written: tuple[Path, Dataset]) -> None:
    folder, drawn = written
    read = datasets.load("davis2017", folder)
    assert [(clip.name, len(clip.frames)) for clip in read.clips] == [("00", 16), ("01", 16), ("02", 4)]
    assert read.clips[1].frames[2] == "JPEGImages/480p/01/00002.jpg"
    for ours, theirs in zip(drawn.images, read.images, strict=True):  # compressed, but of the same scene
        pixels = [np.asarray(decode(record.read()).image, float) for record in (ours, theirs)]
        assert np.abs(pixels[0] - pixels[1]).mean() < 3
        assert header(theirs.read()).format == "JPEG"


def test_the_layout_is_what_the_official_evaluation_looks_for(written: tuple[Path, Dataset]) -> None:
    """As davis2017-evaluation finds files: globs of *.jpg and *.png, sorted, by the clips of val.txt."""
    folder, _ = written
    listed = (folder / "ImageSets" / "2017" / "val.txt").read_text().splitlines()
    assert listed == ["00", "01", "02"]
    expected = {"ImageSets/2017/val.txt"}
    for clip, frames in zip(listed, (16, 16, 4), strict=True):
        for kind, ending in (("JPEGImages", "jpg"), ("Annotations", "png")):
            found = sorted((folder / kind / "480p" / clip).glob(f"*.{ending}"))
            assert [path.stem for path in found] == [f"{number:05d}" for number in range(frames)]
            expected |= {path.relative_to(folder).as_posix() for path in found}
        images, annotations = (
            [Image.open(path) for path in sorted((folder / kind / "480p" / clip).iterdir())]
            for kind in ("JPEGImages", "Annotations")
        )
        assert {image.format for image in images} == {"JPEG"}
        assert {image.mode for image in annotations} == {"P"}
        assert len({image.size for image in (*images, *annotations)}) == 1
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == expected


def test_a_turned_png_becomes_an_upright_jpeg_with_its_mask(tmp_path: Path) -> None:
    """A red block at the upper left of the stored picture is at the upper right when shown (EXIF 6)."""
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:8, :8, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    shown = np.zeros((24, 16), bool)
    shown[:8, 8:] = True
    thing = Object(7, "object", (8, 0, 16, 8), 64, mask=masks.from_array(shown))
    record = ImageRecord("a.png", (tmp_path / "a.png").read_bytes, lambda w, h, o: Annotations((thing,)))
    (tmp_path / "out").mkdir()
    recipes.load("ingest/exports", "davis2017").write(
        Dataset("one", "val", [record], clips=(Clip("x", ("a.png",)),)), tmp_path / "out"
    )
    with Image.open(tmp_path / "out" / "JPEGImages" / "480p" / "x" / "00000.jpg") as frame:
        red = np.asarray(frame)[..., 0] > 128
        assert frame.getexif().get(0x0112, 1) == 1
    np.testing.assert_array_equal(red, shown)
    np.testing.assert_array_equal(values(tmp_path / "out", "x", 0), shown)


def test_the_objects_read_back_are_those_drawn(written: tuple[Path, Dataset]) -> None:
    folder, drawn = written
    read = datasets.load("davis2017", folder)
    same: dict[int, set[int]] = {}  # object_id as drawn -> as read
    hidden = 0
    for place in range(36):
        ours, theirs = annotated(drawn, place), annotated(read, place)
        assert [(t.box, t.area, t.mask) for t in theirs.objects] == [
            (t.box, t.area, t.mask) for t in ours.objects
        ]
        assert theirs.void is None
        for one, other in zip(ours.objects, theirs.objects, strict=True):
            same.setdefault(one.object_id, set()).add(other.object_id)
            assert other.object_id // 1000 == place // 16
        hidden += len(annotated(drawn, place // 16 * 16).objects) - len(ours.objects)
    assert all(len(ids) == 1 for ids in same.values())
    assert len(set.union(*same.values())) == len(same) == 2 + 3 + 4  # clip n has 2 + n objects
    assert hidden > 0  # in the first clip one object is out of sight for a while


def test_genuine_clips_written_anew_have_the_same_masks(root: Path, tmp_path: Path) -> None:
    export("davis2017", "davis2017", tmp_path / "new", root=root)
    assert (tmp_path / "new" / "ImageSets" / "2017" / "val.txt").read_text().split() == list(CLIPS)
    for clip in CLIPS:
        for number in range(2):
            truth = values(root, clip, number)
            truth = truth if clip != "car-shadow" else truth == 255
            np.testing.assert_array_equal(values(tmp_path / "new", clip, number), truth)
            frame = Path("JPEGImages", "480p", clip, f"{number:05d}.jpg")
            assert (tmp_path / "new" / frame).read_bytes() == (root / frame).read_bytes()


def test_the_palette_is_that_of_davis(root: Path, tmp_path: Path) -> None:
    export("davis2017", "davis2017", tmp_path / "new", root=root, limit=1)
    file = Path("Annotations", "480p", "tennis", "00000.png")
    ours, theirs = (Image.open(folder / file) for folder in (tmp_path / "new", root))
    assert ours.mode == theirs.mode == "P"
    assert ours.getpalette() == theirs.getpalette()


def test_a_split_of_training_is_train_and_scenes_are_no_clips(root: Path, tmp_path: Path) -> None:
    listed(root, "train", "bear")
    export("davis2017", "davis2017", tmp_path / "new", root=root, split="train")
    assert len(datasets.load("davis2017", tmp_path / "new", "train").images) == 2
    with pytest.raises(DatasetError, match="shapes test has no clips"):
        export("shapes", "davis2017", tmp_path / "other", limit=1)
    assert not (tmp_path / "other").exists()


def test_more_objects_than_a_mask_can_number_are_refused(tmp_path: Path) -> None:
    noise((32, 8), 1).save(tmp_path / "a.png")
    pixel = np.zeros((8, 32), bool)
    pixel[0, 0] = True
    mask = masks.from_array(pixel)
    for count in (254, 255):
        things = tuple(Object(n, "object", (0, 0, 1, 1), 1, mask=mask) for n in range(count))
        record = ImageRecord(
            "a.png", (tmp_path / "a.png").read_bytes, lambda w, h, o, found=things: Annotations(found)
        )
        dataset = Dataset("many", "val", [record], clips=(Clip("x", ("a.png",)),))
        (tmp_path / str(count)).mkdir()
        write = recipes.load("ingest/exports", "davis2017").write
        if count == 254:
            write(dataset, tmp_path / "254")
            assert values(tmp_path / "254", "x", 0)[0, 0] == 254
        else:
            with pytest.raises(DatasetError, match="over 254 objects"):
                write(dataset, tmp_path / "255")


# ------------------------------------------------------------------------------------ nothing without a word


def drawn(root: Path, clip: str, *masks: np.ndarray[Any, Any], palette: bool = False) -> None:
    """A clip of 8 x 6 frames with these masks, the only one that is listed."""
    for kind in ("JPEGImages", "Annotations"):
        (root / kind / "480p" / clip).mkdir(parents=True, exist_ok=True)
    for number, values_ in enumerate(masks):
        Image.new("RGB", (8, 6), (number, 0, 0)).save(root / f"JPEGImages/480p/{clip}/{number:05d}.jpg")
        mask = Image.fromarray(values_.astype(np.uint8))
        if palette:
            mask.putpalette(bytes(768))
        mask.save(root / f"Annotations/480p/{clip}/{number:05d}.png")
    listed(root, "val", clip)


def areas(found: Annotations) -> tuple[dict[int, float], int]:
    """Pixels of each object by its number, and void ones."""
    void = int(masks.to_array(found.void).sum()) if found.void else 0
    return {thing.object_id: thing.area for thing in found.objects}, void


IDS = np.zeros((6, 8), np.uint8)
IDS[0, :3], IDS[1, :5], IDS[5] = 1, 2, 255
VOID = np.where(IDS == 255, 255, 0)


def test_255_is_void_in_a_grey_mask_of_ids(tmp_path: Path) -> None:
    for palette in (False, True):
        drawn(tmp_path, "x", IDS, palette=palette)
        assert areas(annotated(datasets.load("davis2017", tmp_path), 0)) == ({1: 3, 2: 5}, 8)


def test_a_grey_mask_of_0_and_255_is_void_where_its_clip_begins_with_ids(tmp_path: Path) -> None:
    drawn(tmp_path, "x", IDS, VOID)
    found = annotated(datasets.load("davis2017", tmp_path), 1)
    assert areas(found) == ({}, 8)
    assert [(note.place, note.lost) for note in found.notes] == [("Annotations/480p/x/00001.png", False)]
    drawn(tmp_path, "x", VOID, IDS)
    dataset = datasets.load("davis2017", tmp_path)
    assert areas(annotated(dataset, 0)) == ({1: 8}, 0)
    assert areas(annotated(dataset, 1)) == ({1: 3, 2: 5}, 8)


def test_a_clip_is_found_by_its_name_and_not_by_a_pattern(tmp_path: Path) -> None:
    drawn(tmp_path, "a1", IDS)
    drawn(tmp_path, "a[1]*", IDS, IDS)
    (clip,) = datasets.load("davis2017", tmp_path).clips
    assert clip.frames == ("JPEGImages/480p/a[1]*/00000.jpg", "JPEGImages/480p/a[1]*/00001.jpg")


def test_a_list_with_a_byte_order_mark_and_a_clip_twice(tmp_path: Path) -> None:
    drawn(tmp_path, "x", IDS)
    (tmp_path / "ImageSets" / "2017" / "val.txt").write_bytes(b"\xef\xbb\xbfx\r\n\r\nx \r\n")
    dataset = datasets.load("davis2017", tmp_path)
    assert [clip.name for clip in dataset.clips] == ["x"]
    assert [(n.kind, n.place, n.count, n.lost) for n in dataset.notes] == [
        ("clips listed twice, taken once", "val.txt, x", 1, False)
    ]


def test_files_beside_frames_and_masks_without_a_frame_are_told(tmp_path: Path) -> None:
    drawn(tmp_path, "x", IDS, IDS)
    frames = tmp_path / "JPEGImages" / "480p" / "x"
    (frames / "00001.jpg").unlink()
    (frames / "00000.json").write_text("{}")
    (frames / "00000.png").write_bytes(b"")
    dataset = datasets.load("davis2017", tmp_path)
    assert dataset.clips[0].frames == ("JPEGImages/480p/x/00000.jpg",)
    assert {(note.place, note.lost) for note in dataset.notes} == {
        ("Annotations/480p/x/00001.png", True),
        ("JPEGImages/480p/x/00000.png", True),
        ("JPEGImages/480p/x/00000.json", False),
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("\n", "lists no clip"),
        ("/JPEGImages/480p/x/00000.jpg /Annotations/480p/x/00000.png", "is no clip's name"),
        ("../x", "is no clip's name"),
        ("y" * 100_000, "no JPEGImages"),
        ("y\0", "no JPEGImages"),
    ],
)
def test_a_list_of_something_else_is_told(tmp_path: Path, content: str, said: str) -> None:
    drawn(tmp_path, "x", IDS)
    (tmp_path / "ImageSets" / "2017" / "val.txt").write_text(content)
    with pytest.raises(DatasetError, match=said):
        datasets.load("davis2017", tmp_path)


def test_a_clip_without_frames_and_the_first_frame_of_test_dev_without_a_mask_are_told(
    tmp_path: Path,
) -> None:
    drawn(tmp_path, "x", IDS, IDS)
    listed(tmp_path, "test-dev", "x")
    for mask in (tmp_path / "Annotations" / "480p" / "x").iterdir():
        mask.unlink()
    dataset = datasets.load("davis2017", tmp_path, "test-dev")
    assert annotated(dataset, 1) == Annotations()
    with pytest.raises(ImageError, match="no file"):
        annotated(dataset, 0)
    for frame in (tmp_path / "JPEGImages" / "480p" / "x").iterdir():
        frame.unlink()
    with pytest.raises(DatasetError, match="no frame in"):
        datasets.load("davis2017", tmp_path)
