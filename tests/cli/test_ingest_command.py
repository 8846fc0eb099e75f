"""`kvstore ingest` as it is typed: the forecast, exit codes, mistakes in one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvstore import cli, models
from kvstore.store import Store
from tests.ingesting import pictures, query

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: Any, monkeypatch: Any) -> Run:
    """`run("coco", ...)`: exit code and stderr of the command; nothing goes to stdout."""
    monkeypatch.delenv("KVSTORE_STORE", raising=False)

    def call(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main(["ingest", *map(str, arguments)])
        said = capsys.readouterr()
        assert said.out == ""
        return int(caught.value.code or 0), said.err

    return call


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("images"), [(60, 60), (80, 50)])


def test_a_dry_run_says_what_the_ingest_then_stores_and_makes_nothing(
    run: Run, images: Path, tmp_path: Path
) -> None:
    typed = ("folder", "--root", images, "--model", "tiny-onevision", "--store", tmp_path / "s")
    typed += ("--layers", "1,3", "--sites", "value,input,encoder")
    code, said = run(*typed, "--dry-run")
    told = dict(line.split(maxsplit=1) for line in said.splitlines())
    assert code == 0
    assert not (tmp_path / "s").exists()
    # two images of 14 x 14 patches: 2 layers of 2 heads, the projector's output, one encoder layer
    assert (told["images"], told["rows"]) == ("2", f"{2 * 196 * (2 * 2 + 1 + 1):,}")
    assert run(*typed)[0] == 0
    store = Store.open(tmp_path / "s")
    stored = query(store, "select images, rows, tokens from run")[0]
    assert [f"{number:,}" for number in stored] == [told["images"], told["rows"], told["tokens"]]
    code, said = run(*typed, "--dry-run")
    assert code == 0
    assert "images     0 (and 2 stored already)" in said


def test_a_quarantined_image_makes_exit_code_1(run: Run, images: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(images, tmp_path / "images")
    (folder / "bad.png").write_bytes(b"no image")
    typed = ("folder", "--root", folder, "--model", "tiny-onevision", "--store", tmp_path / "s")
    code, said = run(*typed, "--layers", "0", "--sites", "value")
    assert code == 1
    assert "2 images stored" in said
    assert "1 images in quarantine" in said


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["cocoo"], "did you mean 'coco'"),
        (["folder", "--model", "tiny-onevison"], "did you mean 'tiny-onevision'"),
        (["folder", "--layers", "8"], "there is no layer 8: this model has 8, 0 to 7"),
        (["folder", "--sites", "vlaue"], "did you mean 'value'"),
        (["folder", "--view", "alll"], "did you mean 'all'"),
        (["folder", "--dtype", "float8"], "did you mean 'float"),
        (["coco", "--split", "val2071"], "did you mean 'val2017'"),
        (["folder", "--limit", "0"], "--limit must be at least 1"),
        (["folder", "--batch", "0"], "--batch must be at least 1"),
        (["folder", "--workers", "-3"], "--workers must be at least 1"),
        (["folder", "--run", "A b"], "is no run name"),
        (["folder", "--device", "cuda:77"], "device 'cuda:77' cannot be used"),
        (["folder", "--root", "/nowhere/at/all"], "no folder /nowhere/at/all"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    run: Run, images: Path, tmp_path: Path, typed: list[str], said: str
) -> None:
    defaults = {"--root": str(images), "--model": "tiny-onevision", "--store": str(tmp_path / "s")}
    rest = [part for name, value in defaults.items() if name not in typed for part in (name, value)]
    code, told = run(*typed, *rest)
    assert code == 2
    assert said in told
    assert "Traceback" not in told
    assert told.splitlines()[-1].startswith("kvstore: ")


def test_a_model_with_a_missing_shard_is_refused(run: Run, images: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(models.load_config("tiny-onevision").folder, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    code, said = run("folder", "--root", images, "--model", folder, "--store", tmp_path / "s")
    assert code == 2
    assert "lacks the weight file model.safetensors" in said
    assert "Traceback" not in said


def test_a_store_of_a_newer_kvstore_is_refused(run: Run, images: Path, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "s", create=True)
    with store.publish() as con:
        con.execute("update store set version = 99")
    code, said = run("folder", "--root", images, "--model", "tiny-onevision", "--store", store.root)
    assert code == 2
    assert "has format 99" in said


def test_a_store_below_a_file_cannot_be_made(run: Run, images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    code, said = run("folder", "--root", images, "--model", "tiny-onevision", "--store", tmp_path / "file/s")
    assert code == 2
    assert "cannot be written" in said
