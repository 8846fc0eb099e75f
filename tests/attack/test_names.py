"""Names from data sets and received stores: no path leaves its folder, none lies over another.

All exports that `kvstore ls exports` lists are tried, and all layouts of probes' exports: a new one is tried
by itself. Those that put a name into a path are told by a harmless name, which is found there.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from PIL import Image

from kvstore import cli, datasets, names, pins, recipes, submission, vectors
from kvstore.errors import DatasetError, ImageError, KvstoreError, StoreError
from kvstore.masks import from_array
from kvstore.report.reading import Answer
from kvstore.store import Store
from tests.stores import make_store

#: Names that no file may have; with what is told of them.
HOSTILE = {
    "": "it is empty",
    " ": "it is empty",
    ".": "it leaves its folder",
    "..": "it leaves its folder",
    "../evil": "it has a separator",
    "x/../../evil": "it has a separator",
    "/evil": "it has a separator",
    "a\\b": "it has a separator",
    "C:\\evil": "it has a separator",
    "C:evil": "it begins with a drive",
    "a\0b": "it has a control character",
    "a\nb": "it has a control character",
    ".git": "it would be hidden",
    "evil.": "it ends in a dot or a blank",
    "evil ": "it ends in a dot or a blank",
    "nul": "it is a device's on Windows",
    "Com1.png": "it is a device's on Windows",
    "AUX .tar.gz": "it is a device's on Windows",
    "x" * 256: "it is longer than 255 bytes",
    "é" * 128: "it is longer than 255 bytes",
}
#: Two names that are one file's on some system.
ALIKE = [("Cow", "cow"), ("caf\u00e9", "cafe\u0301"), ("STRASSE", "stra\u00dfe")]
HARMLESS = "zebra, (left)"

RECIPE = '''"""Images, categories, clips, keypoints, pairs and words under the names that a file lists."""

import json
from pathlib import Path

from kvstore.contracts import *

SPLITS = ()


def load(root, split):
    names = json.loads((root / "names.json").read_text())
    mask = json.dumps({"size": [8, 8], "counts": "0P2"})  # all 64 pixels
    box = (0, 0, 8, 8)

    def record(number, name):
        def annotate(width, height, orientation):
            point = Keypoint(name, 1, 1)
            thing = Object(number, name, box, 64, mask=mask, keypoints=(point,))
            return Annotations((thing,), (name,), (Expression(number, name),))

        return ImageRecord(name, (root / "image.jpg").read_bytes, annotate)

    images = [record(number, name) for number, name in enumerate(names)]
    pairs = [Pair(n, name, name, name, box, box, ()) for n, name in enumerate(names)]
    clips = tuple(Clip(name, (name,)) for name in names)
    return Dataset("hostile", "", images, root, pairs=pairs, clips=clips)
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory: Any) -> Path:
    """A folder with a recipe in `mine/`, its data in `data/`, and room for exports in `out/`."""
    root: Path = tmp_path_factory.mktemp("names")
    (root / "mine/ingest/datasets").mkdir(parents=True)
    (root / "mine/ingest/datasets/hostile.py").write_text(RECIPE)
    (root / "data").mkdir()
    Image.new("RGB", (8, 8), "red").save(root / "data/image.jpg")
    (root / "out").mkdir()
    return root


Export = Callable[[str, list[str]], tuple[int, str, list[Path]]]


@pytest.fixture
def export(place: Path, capsys: Any, monkeypatch: Any) -> Export:
    """`export(format, names)`: exit code, stderr, and the files that are there, below DIR."""
    monkeypatch.setattr(recipes, "__path__", [str(place / "mine"), str(recipes.SHIPPED)])

    def call(format_: str, given: list[str]) -> tuple[int, str, list[Path]]:
        (place / "data/names.json").write_text(json.dumps(given))
        target = place / "out" / f"{sum(1 for _ in (place / 'out').iterdir())}"
        before = everything(place)
        with pytest.raises(SystemExit) as caught:
            cli.main(["hostile", "export", format_, str(target), "--root", str(place / "data")])
        said = capsys.readouterr()
        assert said.out == ""
        made = everything(place) - before
        assert [path for path in made if not path.is_relative_to(target)] == []
        return int(caught.value.code or 0), said.err, sorted(path for path in made if path.is_file())

    return call


def everything(folder: Path) -> set[Path]:
    """All that lies in a folder and right beside it, where `..` would lead."""
    return {*folder.rglob("*"), *folder.parent.glob("*"), *Path("/").glob("*")}


def shown(found: list[Path], name: str) -> bool:
    return any(name in part for path in found for part in path.parts)


def lists(found: list[Path]) -> bool:
    """Whether a name stands in a list of names, one in each line."""
    return any(HARMLESS in path.read_text() for path in found if path.suffix == ".txt")


FORMATS = sorted(recipes.listing("ingest/exports"))


@pytest.mark.parametrize("format_", FORMATS)
def test_no_export_of_a_data_set_writes_outside_its_folder(format_: str, export: Export) -> None:
    """It is refused in a line and leaves nothing, or as many files are there as of a harmless name."""
    code, said, found = export(format_, [HARMLESS])
    assert code == 0, said
    for name, told in HOSTILE.items():
        code, said, there = export(format_, [name])
        assert said.count("\n") == 1
        assert (code, len(there)) in {(0, len(found)), (2, 0)}, (name, said)
        assert not {part for path in there for part in path.parts[1:]} & set(HOSTILE), name
        if "\n" in name and lists(found):
            assert code == 2, said
        if shown(found, HARMLESS) and format_ != "folder":  # which adds an ending to an image's name
            assert (code, told in said) == (2, True), (name, said)


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("alike", [*ALIKE, ("a", "a/b"), ("a.jpg", "a.jpg/b.jpg")])
def test_no_export_of_a_data_set_writes_one_name_over_another(
    format_: str, alike: tuple[str, str], export: Export
) -> None:
    code, said, found = export(format_, ["one", "two"])
    assert code == 0, said
    code, said, there = export(format_, [*alike])
    assert (code, len(there)) in {(0, len(found)), (2, 0)}, said
    if alike in ALIKE and shown(found, "one"):
        assert (code, "are one file on Windows and macOS" in said) == (2, True), said


def test_a_link_that_stands_in_the_destination_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/cat").symlink_to(tmp_path / "mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "out/dog.png").symlink_to(tmp_path / "mine/dog.png")
    for parts in (("cat", "a.png"), ("cat", "inner", "a.png"), ("dog.png",), ("dog.png", "a.png")):
        with pytest.raises(DatasetError, match="would lie where another does"):
            names.place(tmp_path / "out", *parts)
    assert list((tmp_path / "mine").iterdir()) == []
    assert names.place(tmp_path / "out", "cow", "a.png") == tmp_path / "out/cow/a.png"


# ------------------------------------------------------------------------------- masks of a received store

_CLONE = {
    "dataset": ("dataset_id = 'set'", "$set as dataset_id, $set as fingerprint"),
    "run": ("run_id = 'run'", "$set as run_id, $set as dataset_id, $set as fingerprint, map {} as versions"),
    "token_grid": ("run_id = 'run'", "$set as run_id"),
    "dataset_image": ("dataset_id = 'set'", "$set as dataset_id, $name || '/' || name as name"),
    "frame": ("dataset_id = 'set'", "$set as dataset_id, $name as clip"),
    "object": ("dataset_id = 'set'", "$set as dataset_id"),
    "mask": ("run_id = 'run'", "$set as run_id, $name as label"),
}


Received = tuple[Store, Any]  # with a connection that is used again: to load the extension takes long


@pytest.fixture(scope="module")
def received(tmp_path_factory: Any) -> Iterator[Received]:
    """Three images of one clip and object, with masks by each probe that exports any; a run for each name."""
    made = make_store(tmp_path_factory.mktemp("received") / "s")
    mask = from_array(np.ones((30, 40), bool))
    with made.store.publish() as con:
        for number, image in enumerate(made.image_ids):
            con.execute("insert into frame values ('set', 'clip', ?, ?)", [number, image])
            con.execute(
                "insert into object values ('set', 7, ?, 'thing', 0, 0, 1, 1, 1, false, ?)", [image, mask]
            )
            for probe in submission.LAYOUTS:
                con.execute(
                    "insert into mask (run_id, probe, image_id, label, object_id, number, site, layer, head,"
                    " mask, predicted, truth, shared, valid)"
                    " values ('run', ?, ?, 'clip', 7, ?, 'value', 1, 0, ?, 1200, 1, 1, 1200)",
                    [probe, image, number, mask],
                )
        for run, name in enumerate([HARMLESS, *HOSTILE]):
            for table, (which, instead) in _CLONE.items():
                sql = f"insert into {table} by name select * replace ({instead}) from {table} where {which}"
                given = {"set": str(run), "name": name}
                con.execute(sql, {key: value for key, value in given.items() if f"${key}" in sql})
    with made.store.connect() as con:
        yield made.store, con


def written(received: Received, probe: str, run: int, target: Path) -> list[Path] | str:
    """The files of an export below its folder, or what is told where it is refused."""
    before, (store, con) = everything(target.parent), received
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "connect", lambda store: nullcontext(con))
            submission.write(store, submission.Chosen(str(run), probe, "value", 1, 0), target)
    except KvstoreError as error:
        assert everything(target.parent) == before
        return str(error)
    new = everything(target.parent) - before
    assert [path for path in new if not path.is_relative_to(target)] == []
    return sorted(path.relative_to(target) for path in new if path.is_file())


@pytest.mark.parametrize("probe", submission.LAYOUTS)
def test_no_export_of_a_probe_writes_outside_its_folder(
    probe: str, received: Received, tmp_path: Path
) -> None:
    """It is refused in a line and leaves nothing, or as many files are there as of a harmless name."""
    found = written(received, probe, 0, tmp_path / "0")
    assert isinstance(found, list)
    for run, (name, told) in enumerate(HOSTILE.items(), 1):
        got = written(received, probe, run, tmp_path / str(run))
        if isinstance(got, str):
            assert "\n" not in got
        else:
            assert len(got) == len(found)
            assert not {part for path in got for part in path.parts} & set(HOSTILE)
        if shown(found, HARMLESS) and probe != "semantic-segmentation":  # which takes the image's folder
            assert told in got, name


def test_masks_of_images_of_one_name_are_not_written_over_one_another(tmp_path: Path) -> None:
    made = make_store(tmp_path / "s")
    mask = from_array(np.ones((30, 40), bool))
    with made.store.publish() as con:
        for image, folder in zip(made.image_ids, "xyz", strict=True):
            con.execute("update dataset_image set name = ? where image_id = ?", [f"{folder}/a/1.png", image])
            con.execute(
                "insert into mask (run_id, probe, image_id, label, object_id, number, site, layer, head,"
                " mask, predicted, truth, shared, valid)"
                " values ('run', 'cosegmentation', ?, 'cat', 7, 0, 'value', 1, 0, ?, 1, 1, 1, 1)",
                [image, mask],
            )
    with pytest.raises(DatasetError, match=r"1\.png' would lie where another does"):
        submission.write(
            made.store, submission.Chosen("run", "cosegmentation", "value", 1, 0), tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------- tables that a catalog names


@pytest.mark.parametrize(
    ("run", "kind"), [("../../evil", "patch_kv"), ("a", "../../evil"), ("/evil", "x"), ("a\0", "b")]
)
def test_no_table_of_a_catalog_lies_outside_the_store(run: str, kind: str, tmp_path: Path) -> None:
    lance = tmp_path / "s" / "lance"
    lance.mkdir(parents=True)
    for call in (
        lambda: pins.pin(lance, run, kind, 1, []),
        lambda: pins.find(lance, run, kind, 1),
        lambda: vectors.opened(lance, run, kind),
    ):
        with pytest.raises(StoreError, match="can be no folder") as told:
            call()
        assert len(str(told.value)) < 300
        assert "\n" not in str(told.value)
    assert [path.name for path in tmp_path.rglob("*")] == ["s", "lance"]


def test_a_run_that_reaches_outside_is_told_in_a_line_and_makes_nothing(tmp_path: Path, capsys: Any) -> None:
    """As in a store that somebody sent, whose catalog kvstore did not write."""
    made = make_store(tmp_path / "s")
    with duckdb.connect(str(made.store.catalog)) as con:
        con.execute("update run set run_id = '../../../evil'")
    before = everything(tmp_path)
    for command, code in ((["optimize"], 1), (["drop", "../../../evil", "--yes"], 2)):
        with pytest.raises(SystemExit) as caught:
            cli.main([*command, "--store", str(made.store.root)])
        said = capsys.readouterr().err
        assert (caught.value.code, said.count("\n")) == (code, 1), said
        assert "evil" in said
    assert {
        path for path in everything(tmp_path) - before if not path.is_relative_to(made.store.root / "locks")
    } == set()


def test_pins_are_not_made_through_a_link(tmp_path: Path) -> None:
    made = make_store(tmp_path / "s")
    shutil.rmtree(made.store.lance / pins.FOLDER)
    (tmp_path / "mine").mkdir()
    (made.store.lance / pins.FOLDER).symlink_to(tmp_path / "mine")
    with made.store.publish() as con:
        con.execute("insert into caption values ('set', 1, 0, 'a cat')")
    assert list((tmp_path / "mine").iterdir()) == []
    with made.store.connect() as con:
        assert con.execute("select count(distinct image_id) from patch_kv").fetchall() == [(3,)]


# ---------------------------------------------------------------------- files of reports


def test_files_of_a_reports_rows_have_one_name_each_whatever_its_parameters() -> None:
    values = [
        "a",
        "A",
        "a/b",
        "a_b",
        "a.b",
        "../evil",
        "",
        "1",
        1,
        1.0,
        -1,
        True,
        None,
        "none",
        "x" * 500,
        "x" * 501,
    ]
    answers = [Answer("points", {"run": value}, "", None, "") for value in values]  # type: ignore[arg-type]
    answers += [
        Answer("points", {"a": "1.b-2"}, "", None, ""),
        Answer("points", {"a": 1, "b": 2}, "", None, ""),
    ]  # type: ignore[arg-type]
    found = [f"{answer.name}.parquet" for answer in answers]
    assert len({name.casefold() for name in found}) == len(answers)
    assert [name for name in found if names.unfit(name)] == []
    assert found[0] == "points.run-a.parquet"


# ---------------------------------------------------------------------- reading


_opened: list[str] | None = None


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None:
        _opened.append(str(arguments[0]))


sys.addaudithook(_hear)


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """The files that this process opens."""
    global _opened
    _opened = []
    yield _opened
    _opened = None


def coco(root: Path, files: list[str]) -> dict[str, Any]:
    (root / "annotations").mkdir(parents=True)
    images = [{"id": n, "file_name": f, "width": 8, "height": 8} for n, f in enumerate(files, 1)]
    told = json.dumps({"images": images, "annotations": [], "categories": []})
    for kind in ("instances", "captions", "person_keypoints"):
        (root / "annotations" / f"{kind}_val2017.json").write_text(told)
    (root / "val2017").mkdir()
    return {"root": root}


def tools_export(root: Path, files: list[str]) -> dict[str, Any]:
    coco(root, files)
    return {"annotations": root / "annotations/instances_val2017.json", "images": root / "val2017"}


@pytest.mark.parametrize("make", [coco, tools_export])
def test_an_annotation_file_names_no_image_outside_the_root(
    make: Any, tmp_path: Path, opened: list[str]
) -> None:
    for number in range(6):
        Image.new("RGB", (8, 8)).save(tmp_path / f"secret{number}.png")
    files = [
        "../../secret0.png",
        "../../../secret1.png",
        str(tmp_path / "secret2.png"),
        "a/../../../secret3.png",
        "link.png",
        "folder/secret5.png",
    ]
    given = make(tmp_path / "root", files)
    (tmp_path / "root/val2017/link.png").symlink_to(tmp_path / "secret4.png")
    (tmp_path / "root/val2017/folder").symlink_to(tmp_path)
    opened.clear()
    dataset = datasets.load("coco", **given)
    assert len(dataset.images) == len(files)
    for record in dataset.images:
        with pytest.raises(ImageError) as told:
            record.read()
        assert told.value.reason in ("unsafe-path", "missing")
    assert opened
    assert [path for path in opened if path.endswith(".png")] == []
