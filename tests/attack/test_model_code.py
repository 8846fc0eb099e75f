"""Model folders that bring code: none of it runs unless it is asked for, whatever is typed."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kvstore import models, pretrained, prompting
from kvstore.errors import ModelError
from tests import tiny

Edits = dict[str, dict[str, Any]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model; what its code leaves lies beside it. `y` is typed, and trusted code is unpacked here."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    pretrained.tokenizer.cache_clear()
    return Path(shutil.copytree(tiny.loaded("tiny-onevision").folder, tmp_path / "model"))


def edit(folder: Path, edits: Edits) -> None:
    for name, settings in edits.items():
        path = folder / name
        there = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({**there, **settings}))


def bring_code(folder: Path, code: str = "class Mine: pass") -> Path:
    """Put ``own.py`` into the folder, and what generation may run; the mark that either leaves."""
    mark = folder.parent / "mark"
    leave = f"open({str(mark)!r}, 'w').close()\n"
    (folder / "own.py").write_text(leave + code)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate/generate.py").write_text(leave + "def generate(model, **kwargs): pass\n")
    return mark


def used(folder: Path, *, trusted: bool = False) -> models.Loaded:
    """All loaders at work: configuration, processor, tokenizer, image processor, weights."""
    loaded = models.load(str(folder), "cpu", "float32", trusted=trusted)
    prompting.prompt_ids(loaded)
    prompting.processor(loaded)
    return loaded


NAMED = {
    "config.json": {
        "auto_map": {
            "AutoConfig": "own.Mine",
            "AutoModel": "own.Mine",
            "AutoModelForImageTextToText": "own.Mine",
            "AutoProcessor": "own.Mine",
        }
    },
    "tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["own.Mine", "own.Mine"]}},
    "preprocessor_config.json": {"auto_map": {"AutoImageProcessor": "own.Mine", "AutoProcessor": "own.Mine"}},
    "processor_config.json": {"auto_map": {"AutoProcessor": "own.Mine"}},
}


@pytest.mark.parametrize("file", NAMED)
def test_code_that_is_not_needed_does_not_run(folder: Path, file: str) -> None:
    mark = bring_code(folder)
    edit(folder, {file: NAMED[file]})
    for trusted in (False, True):  # the library's class is taken either way
        pretrained.tokenizer.cache_clear()
        loaded, plain = used(folder, trusted=trusted), tiny.loaded("tiny-onevision")
        assert type(loaded.model) is type(plain.model)
        assert type(loaded.tokenizer) is type(plain.tokenizer)
        assert not mark.exists()


NEEDED: dict[str, Edits] = {
    "tokenizer": {"tokenizer_config.json": {**NAMED["tokenizer_config.json"], "tokenizer_class": "Mine"}},
    "tokenizer, unnamed": {
        "tokenizer_config.json": {**NAMED["tokenizer_config.json"], "tokenizer_class": None}
    },
    "tokenizer, old form": {
        "tokenizer_config.json": {"auto_map": ["own.Mine", None], "tokenizer_class": "MineFast"}
    },
    "image processor": {
        "preprocessor_config.json": {**NAMED["preprocessor_config.json"], "image_processor_type": "Mine"}
    },
    "image processor, new form": {
        "processor_config.json": {
            "image_processor": {
                "auto_map": {"AutoImageProcessor": "own.Mine"},
                "image_processor_type": "Mine",
            }
        }
    },
}


@pytest.mark.parametrize("loader", NEEDED)
def test_code_that_is_needed_is_told_with_its_file_and_setting(folder: Path, loader: str) -> None:
    mark = bring_code(folder)
    edit(folder, NEEDED[loader])
    with pytest.raises(ModelError) as caught:
        used(folder)
    (file,) = NEEDED[loader]
    assert str(caught.value).startswith(
        f"{folder / file} needs Python code of its folder (auto_map: own.Mine)"
    )
    assert str(caught.value).endswith("--trust-remote-code")
    assert not mark.exists()


def test_a_configuration_of_a_family_of_ones_own_needs_trust(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = bring_code(
        folder,
        "from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration\n"
        "class Mine(LlavaOnevisionConfig):\n    model_type = 'mine'\n"
        "class MyModel(LlavaOnevisionForConditionalGeneration):\n    config_class = Mine\n",
    )
    named = {"AutoConfig": "own.Mine", "AutoModelForImageTextToText": "own.MyModel"}
    edit(folder, {"config.json": {"auto_map": named, "model_type": "mine"}})
    family = tiny.loaded("tiny-onevision").family
    monkeypatch.setattr(family, "MODEL_TYPES", (*family.MODEL_TYPES, "mine"))
    with pytest.raises(ModelError, match=r"config.json needs Python code .* --trust-remote-code$"):
        models.load_config(str(folder))
    assert not mark.exists()
    assert models.load_config(str(folder), trusted=True).description["architecture"] == "MyModel"
    assert mark.exists()


def test_code_that_is_trusted_runs_and_is_in_the_revision(folder: Path) -> None:
    mark = bring_code(
        folder,
        "from transformers import LlavaOnevisionImageProcessorPil, PreTrainedTokenizerFast\n"
        "class Mine(PreTrainedTokenizerFast): pass\n"
        "class MyImages(LlavaOnevisionImageProcessorPil): pass\n",
    )
    edit(folder, NEEDED["tokenizer"])
    pixels = {"auto_map": {"AutoImageProcessor": "own.MyImages"}, "image_processor_type": "MyImages"}
    edit(folder, {"preprocessor_config.json": pixels})
    loaded = used(folder, trusted=True)
    assert mark.exists()
    assert (type(loaded.tokenizer).__name__, type(loaded.image_processor).__name__) == ("Mine", "MyImages")
    assert prompting.prompt_ids(loaded) == prompting.prompt_ids(tiny.loaded("tiny-onevision"))
    files, _, code = loaded.revision.partition("+")
    assert (len(files), len(code)) == (64, 64)
    (folder / "own.py").write_text((folder / "own.py").read_text() + "# changed\n")
    again = models.load_config(str(folder), trusted=True).revision
    assert again.startswith(f"{files}+")
    assert again != loaded.revision
    with pytest.raises(ModelError, match=f"made with code {code[:12]} of "):
        models.load_again(str(folder), loaded.revision, "r", "cpu", "float32", trusted=True)


def test_code_of_another_repository_is_not_fetched(folder: Path) -> None:
    edit(folder, NEEDED["tokenizer"])
    edit(folder, {"tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["some/repo--own.Mine", None]}}})
    for trusted in (False, True):
        with pytest.raises(ModelError, match=r"another repository \(auto_map: some/repo--own.Mine\)"):
            used(folder, trusted=trusted)


def test_the_command_asks_nothing_and_ends_in_one_line(folder: Path) -> None:
    mark = bring_code(folder)
    edit(folder, NEEDED["tokenizer"])
    command = ["ingest", "shapes", "--dry-run", "--model", folder, "--store", folder.parent / "store"]
    done = subprocess.run(
        [sys.executable, "-m", "kvstore", *command], input="y\n", capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("kvstore: ")
    assert "tokenizer_config.json needs Python code" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not mark.exists()


# ------------------------------------------------------------------------------------------ weights


class Leaves:
    """What leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("form", ["new", "old", "pickle"])
def test_a_pickle_of_weights_runs_nothing(folder: Path, form: str) -> None:
    mark = folder.parent / "mark"
    weights = {**load_file(folder / "model.safetensors"), "lm_head.extra": Leaves(mark)}
    if form == "pickle":
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"lm_head.weight": Leaves(mark)}, protocol=2))
    else:
        torch.save(weights, folder / "pytorch_model.bin", _use_new_zipfile_serialization=form == "new")
    # where both are there, safetensors are taken
    assert used(folder).model.get_input_embeddings().weight.isfinite().all()
    assert not mark.exists()
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"the weights in .* cannot be loaded"):
        used(folder)
    assert not mark.exists()


def test_weights_of_other_folders_are_refused(folder: Path) -> None:
    other = shutil.move(folder / "model.safetensors", folder.parent / "model.safetensors")
    index = {"weight_map": dict.fromkeys(load_file(other), "../model.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"names weights in other folders \(\.\./model.safetensors\)"):
        used(folder)


# ------------------------------------------------------------------------ what would reach out otherwise


def test_an_adapter_is_refused_whether_its_library_is_there_or_not(folder: Path) -> None:
    edit(folder, {"adapter_config.json": {"base_model_name_or_path": "some/model", "peft_type": "LORA"}})
    with pytest.raises(ModelError, match="holds an adapter"):
        used(folder)


def test_an_attention_kernel_is_not_fetched(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(folder, {"config.json": {"_attn_implementation": "some-org/kernel:attention"}})
    loaded = used(folder)
    assert "some-org/kernel:attention, which is not installed; the default" in capsys.readouterr().err
    assert "/" not in str(loaded.model.config._attn_implementation)


def test_a_tokenizer_is_made_of_its_own_folders_files(folder: Path) -> None:
    outside = folder.parent / "vocab.json"
    outside.write_text("not to be read")
    paths = dict.fromkeys(("tokenizer_file", "vocab_file", "merges_file", "gguf_file"), str(outside))
    edit(folder, {"tokenizer_config.json": paths})
    assert prompting.prompt_ids(used(folder)) == prompting.prompt_ids(tiny.loaded("tiny-onevision"))
    pretrained.tokenizer.cache_clear()
    edit(folder, {"tokenizer_config.json": {"fast_tokenizer_files": ["../tokenizer.json"]}})
    with pytest.raises(ModelError, match="fast_tokenizer_files"):
        used(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "chat_template.jinja"])
def test_settings_are_no_links_out_of_the_folder(folder: Path, name: str) -> None:
    path = folder / name
    outside = shutil.move(path, folder.parent / name)
    path.symlink_to(outside)
    with pytest.raises(ModelError, match=f"{name} is a link out of the model's folder"):
        used(folder)
    path.unlink()
    shutil.move(outside, folder / f"{name}.there")
    path.symlink_to(f"{name}.there")
    assert used(folder).model is not None


def test_a_hub_snapshot_is_made_of_links_into_the_hubs_cache(folder: Path, tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--a--b/snapshots" / ("ab" * 20), tmp_path / "models--a--b/blobs"
    snapshot.mkdir(parents=True)
    shutil.move(folder, blobs)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    assert used(snapshot).revision == "ab" * 20


@pytest.mark.parametrize(
    "template",
    [
        "{% include '/etc/hostname' %}<image>",
        "{{ open('/etc/hostname').read() }}<image>",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}<image>",
        "{{ messages.append(1) }}<image>",
        "{{ raise_exception.__globals__['os'] }}<image>",
    ],
)
def test_a_template_reads_no_file_and_leaves_its_sandbox_by_no_attribute(folder: Path, template: str) -> None:
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(ModelError, match=r"the chat template in .* cannot be rendered"):
        used(folder)
