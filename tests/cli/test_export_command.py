"""`kvstore DATASET export FORMAT DIR` as it is typed: what appears, and that nothing does after a mistake."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvstore import cli, models, recipes
from tests.ingesting import pictures

Run = Callable[..., tuple[int, str]]
KVSTORE = Path(sys.executable).parent / "kvstore"


@pytest.fixture
def run(capsys: Any, monkeypatch: Any) -> Run:
    """`run("shapes", "export", ...)`: exit code and stderr; nothing goes to stdout."""
    monkeypatch.delenv("KVSTORE_STORE", raising=False)

    def call(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert said.out == ""
        return int(caught.value.code or 0), said.err

    return call


def everything(folder: Path) -> dict[str, bytes | None]:
    """All below a folder, hidden files too: bytes of files, None for folders."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_both_spellings_write_the_same(run: Run, tmp_path: Path) -> None:
    typed = ("--split", "train", "--limit", 2)
    assert run("shapes", "export", "coco", tmp_path / "a", *typed)[0] == 0
    code, said = run("export", "shapes", "coco", tmp_path / "b", *typed)
    assert (code, said) == (0, f"shapes train: 2 images written to {tmp_path / 'b'} as coco\n")
    assert everything(tmp_path / "a") == everything(tmp_path / "b")
    assert sorted(path.name for path in (tmp_path / "a" / "train2017").iterdir()) == [
        "000000000001.png",
        "000000000002.png",
    ]
    assert [path.name for path in (tmp_path).iterdir() if path.name.startswith(".")] == []


def test_the_folder_may_be_empty_a_link_or_below_folders_that_are_not_there(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    images = pictures(tmp_path / "images", [(8, 8)])
    for target in (tmp_path / "link", tmp_path / "x" / "y" / "z"):
        assert run("folder", "export", "folder", target, "--root", images) == (
            0,
            f"folder: 1 images written to {target} as folder\n",
        )
        assert everything(target) == everything(images)
    assert (tmp_path / "link").is_symlink()
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "empty").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["shapes", "export", "coco", "new", "--limit", "0"], "--limit must be at least 1; got 0"),
        (["shapes", "export", "coco", "new", "--split", "tets"], "did you mean 'test'?"),
        (["shapes", "export", "cocoo", "new"], "no export named 'cocoo'; did you mean 'coco'?"),
        (["shpes", "export", "coco", "new"], "no dataset named 'shpes'; did you mean 'shapes'?"),
        (["export", "shpes", "coco", "new"], "no dataset named 'shpes'; did you mean 'shapes'?"),
        (["shapes", "export", "coco", "full"], "full is not empty"),
        (["shapes", "export", "coco", "file"], "file is a file"),
        (["shapes", "export", "coco", "file/new"], "file/new cannot be"),
        (["shapes", "export", "coco", "loop"], "loop cannot be used"),
        (["shapes", "export", "coco", "n" * 300], "cannot be used: File name too long"),
        (["shapes", "export", "coco", "/proc/new"], "/proc/new cannot be written"),
        (["shapes", "export", "coco"], "DIR"),
        (["shapes", "export"], "FORMAT"),
        (["shapes", "exprot", "coco", "new"], "`kvstore shapes export`"),
        (["shapes"], "'shapes' is a data set"),
        (["coco", "export", "folder", "new", "--root", "nowhere"], "no nowhere/val2017"),
        (["exprot", "shapes", "coco", "new"], "no command named 'exprot'; did you mean 'export'?"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    run: Run, tmp_path: Path, monkeypatch: Any, typed: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "theirs").write_text("x")
    (tmp_path / "file").write_text("y")
    (tmp_path / "loop").symlink_to("loop")
    before = everything(tmp_path)
    code, told = run(*typed)
    assert (code, told.count("\n")) == (2, 1), told
    assert told.startswith("kvstore: ")
    assert said in told
    assert everything(tmp_path) == before


def test_the_current_folder_is_not_replaced(run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    code, told = run("shapes", "export", "coco", ".", "--limit", "1")
    assert (code, told.count("\n")) == (2, 1)
    assert "name a new folder in it" in told
    assert everything(tmp_path) == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_parent_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    code, told = run("shapes", "export", "coco", tmp_path / "locked" / "new")
    assert (code, told.count("\n")) == (2, 1)
    assert "cannot be written (Permission denied)" in told


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EACCES, "cannot be written (Permission denied); name another folder"),
        (errno.EROFS, "cannot be written (Read-only file system); name another folder"),
        (errno.ENOSPC, "no space left on the disk"),
    ],
)
def test_what_the_system_refuses_is_told_and_leaves_nothing(
    run: Run, tmp_path: Path, monkeypatch: Any, number: int, said: str
) -> None:
    """The third write fails, when two images are there already."""
    real, calls = Path.write_bytes, []

    def refuse(path: Path, data: bytes) -> int:
        calls.append(path)
        if len(calls) == 3:
            raise OSError(number, os.strerror(number), str(path))
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", refuse)
    code, told = run("shapes", "export", "coco", tmp_path / "a" / "b", "--limit", "4")
    assert (code, told.count("\n")) == (2, 1)
    assert said in told
    assert len(calls) == 3
    assert everything(tmp_path) == {}


def test_a_folder_filled_meanwhile_stays(run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    real = Path.rename

    def rename(path: Path, target: Path) -> Path:
        target.mkdir()
        (target / "theirs").write_text("x")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    code, told = run("shapes", "export", "folder", tmp_path / "new", "--limit", "1")
    assert (code, told.count("\n")) == (2, 1)
    assert "was filled by another process" in told
    assert everything(tmp_path) == {"new": None, "new/theirs": b"x"}


def test_an_image_that_cannot_be_read_ends_it_with_its_name(run: Run, tmp_path: Path) -> None:
    images = pictures(tmp_path / "images", [(8, 8), (8, 8)])
    (images / "02.png").symlink_to("/etc/hostname")
    (images / "03.png").write_bytes(b"no image")
    for format_, said in (("folder", "'02.png' cannot be exported (unsafe-path)"), ("coco", "'02.png'")):
        code, told = run("folder", "export", format_, tmp_path / "new", "--root", images)
        assert (code, told.count("\n")) == (2, 1)
        assert said in told
    (images / "02.png").unlink()
    code, told = run("folder", "export", "coco", tmp_path / "new", "--root", images)
    assert (code, told.count("\n")) == (2, 1)
    assert "'03.png' cannot be exported (not-an-image)" in told
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    started = subprocess.Popen(
        [KVSTORE, "shapes", "export", "folder", tmp_path / "new", "--split", "train"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".new-*/train/*.png")):
            assert started.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        started.send_signal(signal.SIGINT)
        _, err = started.communicate(timeout=30)
    finally:
        started.kill()
    assert (started.returncode, err) == (130, "")
    assert everything(tmp_path) == {}


# ------------------------------------------------------------------------ formats are files in a folder


def test_a_users_format_is_one_file(run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(recipes, "__path__", list(recipes.__path__))
    monkeypatch.setenv("KVSTORE_RECIPES", "")
    monkeypatch.delenv("KVSTORE_RECIPES")
    (tmp_path / "mine" / "ingest" / "exports").mkdir(parents=True)
    (tmp_path / "mine" / "ingest" / "exports" / "names.py").write_text(
        '"""The names of the images, one a line."""\n'
        "def write(dataset, folder):\n"
        "    names = [record.name for record in dataset.images]\n"
        "    (folder / 'names.txt').write_text('\\n'.join(names))\n"
    )
    target = tmp_path / "new"
    code, _ = run("shapes", "export", "names", target, "--limit", 2, "--recipes", tmp_path / "mine")
    os.environ.pop("KVSTORE_RECIPES", None)
    assert code == 0
    assert everything(target) == {"names.txt": b"test/000000.png\ntest/000001.png"}


def test_ls_lists_the_formats(capsys: Any) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["ls", "exports", "--format", "csv"])
    assert not caught.value.code
    lines = capsys.readouterr().out.splitlines()
    assert {"exports,coco", "exports,folder"} <= {",".join(line.split(",")[:2]) for line in lines[1:]}


# -------------------------------------------------------------------------- a model folder that lacks a file


@pytest.mark.parametrize("name", ["tiny-onevision", "tiny-next", "tiny-qwen"])
@pytest.mark.parametrize(
    "file",
    [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    ],
)
def test_a_model_folder_that_lacks_a_file_is_refused_by_its_name(
    run: Run, tmp_path: Path, name: str, file: str
) -> None:
    folder = shutil.copytree(models.load_config(name).folder, tmp_path / "model")
    (folder / file).unlink()
    code, told = run("ingest", "shapes", "--model", folder, "--store", tmp_path / "s", "--limit", "1")
    assert (code, told.count("\n")) == (2, 1), told
    assert told.startswith("kvstore: ")
    assert file in told
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
