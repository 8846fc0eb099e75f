"""Small files that would take much memory or time: bounded, or refused in one line."""

from __future__ import annotations

import json
import pickle
import resource
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kvstore import datasets, images, limits, models, plain_pickle, pretrained, prompting
from kvstore.budget import Budget
from kvstore.errors import DatasetError, ImageError, ModelError, UsageError
from tests import tiny

# ------------------------------------------------------------------------------------------ pixels

#: Prints how many bytes a pixel of one image the process grows by while threads decode one each.
DECODE = """
import re, sys
from concurrent.futures import ThreadPoolExecutor
from PIL import Image
from kvstore import images
from kvstore.budget import Budget

def peak():  # kB; that of getrusage would be the parent's, if this had more
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])

side, threads, data = int(sys.argv[2]), int(sys.argv[3]), open(sys.argv[1], "rb").read()
images.IN_FLIGHT = Budget(side * side)
Image.core.set_block_size(2**26)
before = peak()
with ThreadPoolExecutor(threads) as pool:
    assert set(pool.map(lambda _: images.decode(data).width, range(threads))) == {side}
print((peak() - before) * 1024 / side**2)
"""


def test_large_images_take_as_much_memory_with_many_threads_as_with_one(tmp_path: Path):
    path, side = tmp_path / "grey.png", 4200  # what is as large goes back to the system when it is freed
    Image.new("I;16", (side, side), 700).save(path, compress_level=1)

    def decoding(threads: int) -> float:
        command = [sys.executable, "-c", DECODE, path, str(side), str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        return float(done.stdout)

    one = decoding(1)
    assert one < 12  # 2 of the grey, 4 of the RGB, and a strip; with copies of 64 bits it were 30
    assert decoding(3) < 1.7 * one


def test_threads_hold_no_more_than_the_budget():
    budget, held, most, lock = Budget(10), [0], [0], threading.Lock()

    def work(amount: int) -> None:
        with budget.taking(amount):
            with lock:
                held[0] += min(amount, 10)
                most[0] = max(most[0], held[0])
            time.sleep(0.002)
            with budget.taking(10):  # what a thread holds already is not waited for
                pass
            with lock:
                held[0] -= min(amount, 10)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, [3, 10, 4, 3, 25, 1, 6] * 4))
    assert most == [10]
    with pytest.raises(KeyError), budget.taking(10):
        raise KeyError
    with budget.taking(10):  # what a fault held was given back
        pass


def refusal(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        images.decode(data)
    return caught.value.detail


def test_comments_in_a_ppm_are_few():
    pixel, comments = b"2 1 255\n" + bytes(range(6)), b"#\n" * 5000
    assert images.decode(b"P6\n# one\n" + pixel).image.getpixel((1, 0)) == (3, 4, 5)
    assert refusal(b"P6\n" + comments + pixel) == "PPM: its header has more than 4096 bytes"
    assert refusal(b"P6\n#" + b"x" * 10**6 + b"\n" + pixel) == "PPM: its header has more than 4096 bytes"
    assert refusal(b"P3\n2 1 255\n" + comments + b"0 1 2 3 4 5") == "PPM: it has more than 1000 comments"


# ------------------------------------------------------------------------------------------ annotations


def read(folder: Path, data: bytes) -> Any:
    (folder / "refs.p").write_bytes(data)
    return plain_pickle.read(folder / "refs.p")


def doubled(times: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(times):
        found = [found, found]
    return found


def test_a_pickle_stands_for_no_more_than_its_length_allows(tmp_path: Path):
    assert read(tmp_path, pickle.dumps(doubled(5))) == doubled(5)
    box = [1.5, 2.5, 3.0, 4.0]  # one list in many places, as pickles of Python have it
    assert (
        read(tmp_path, pickle.dumps([{"box": box, "file": "a" * 40}] * 500))
        == [{"box": box, "file": "a" * 40}] * 500
    )
    holds_itself: list[Any] = []
    holds_itself.append([holds_itself])
    for data, said in (
        (doubled(200), "more than 64 times as long as the file"),
        ({"a": (doubled(40),)}, "more than 64 times as long as the file"),
        (["x" * 100_000] * 1000, "more than 64 times as long as the file"),
        (holds_itself, "a list holds itself"),
    ):
        with pytest.raises(DatasetError, match=said):
            read(tmp_path, pickle.dumps(data))


def test_numbers_have_64_bits_so_that_no_dict_of_them_is_slow(tmp_path: Path):
    prime = 2**61 - 1  # numbers that differ by it have one hash
    assert read(tmp_path, pickle.dumps([2**64 - 1, -(2**63)])) == [2**64 - 1, -(2**63)]
    for data in (pickle.dumps({place * prime: 0 for place in range(40)}), b"I" + b"1" * 40 + b"\n."):
        with pytest.raises(DatasetError, match="a number has more than 64 bits"):
            read(tmp_path, data)
    listed = [
        {"id": place * prime, "file_name": f"{place}.png", "width": 8, "height": 8} for place in range(40)
    ]
    (tmp_path / "x.json").write_text(json.dumps({"images": listed, "annotations": [], "categories": []}))
    loaded = datasets.load("coco", annotations=tmp_path / "x.json")
    assert [record.name for record in loaded.images] == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    assert [(note.kind, note.count) for note in loaded.notes] == [
        ("images without a usable id or file name", 35)
    ]


# ------------------------------------------------------------------------------- text of a model's folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model, of which nothing is known yet, and a second for each of its texts."""
    monkeypatch.setattr(limits, "SECONDS", 1)
    monkeypatch.setattr(prompting, "_TRIED", set())
    pretrained.tokenizer.cache_clear()
    return Path(shutil.copytree(tiny.loaded("tiny-onevision").folder, tmp_path / "model"))


def prompted(folder: Path) -> list[int]:
    return prompting.prompt_ids(models.load_config(str(folder)), "so ")


def test_a_prompt_made_within_limits_is_the_prompt(folder: Path):
    assert prompted(folder) == prompting.prompt_ids(tiny.loaded("tiny-onevision"), "so ")


@pytest.mark.parametrize(
    ("template", "most"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "1 s"),
        ("{{ (10 ** (10 ** 8)) % 7 }}", "1 s"),
        ("{{ 'a' * 10 ** 9 }}", "512 MiB of memory"),
        ("{{ '%1000000000s' % 'a' }}", "512 MiB of memory"),
        (
            "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
            "512",
        ),
    ],
)
def test_a_template_that_loops_or_multiplies_text_is_refused(folder: Path, template: str, most: str):
    (folder / "chat_template.jinja").write_text(template + "<image>")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError) as caught:
        prompted(folder)
    assert f"the chat template in '{folder}' takes more than {most}" in str(caught.value)
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    )  # kB: it was another's memory


def test_a_template_that_loops_over_one_question_alone_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(limits, "SECONDS", 3)
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    loops = "{% if 'why' in messages|string %}" + loop + "{% endif %}"
    template = folder / "chat_template.jinja"
    template.write_text(loops + template.read_text())
    loaded = models.load_config(str(folder))
    asked = [(f"what is {number}?", 1) for number in range(120)]
    assert len(prompting.question_ids(loaded, asked)) == 120
    with pytest.raises(ModelError, match=r"a prompt by the chat template in .* takes more than 3 s"):
        prompting.question_ids(loaded, [*asked, ("why?", 1)])


def test_a_tokenizer_that_multiplies_text_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "SECONDS", 20)
    double = {"type": "Replace", "pattern": {"String": "e"}, "content": "e" * 64}
    path = folder / "tokenizer.json"
    settings = {
        **json.loads(path.read_text()),
        "normalizer": {"type": "Sequence", "normalizers": [double] * 6},
    }
    path.write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=r"the tokenizer in .* takes more than 512 MiB of memory"):
        prompted(folder)


def test_what_is_wrong_is_told_as_without_limits(folder: Path):
    with pytest.raises(UsageError, match="the prefix holds '<image>'"):
        prompting.prompt_ids(models.load_config(str(folder)), "an <image>")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no images') }}")
    with pytest.raises(ModelError, match="cannot be rendered with an image: no images") as caught:
        prompted(folder)
    assert "TemplateError" in caught.value.details  # what --debug shows
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):  # a fault of kvstore's own stays one
        limits.within_limits("division", "", lambda: 1 // 0)


# ------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("model", "file", "settings", "told"),
    [
        ("tiny-dinov2-untrained", "config.json", {"num_hidden_layers": 10**9}, "1000000000 layers"),
        (
            "tiny-qwen-untrained",
            "preprocessor_config.json",
            {"size": {"shortest_edge": 10**12, "longest_edge": 10**13}},
            "tokens of an image of 64 x 48 pixels",
        ),
    ],
)
def test_settings_that_promise_too_much_are_refused_before_it_is_made(
    tmp_path: Path, model: str, file: str, settings: dict[str, Any], told: str
):
    folder = tmp_path / "model"
    shutil.copytree(models.load_config(model).folder, folder)
    found = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(found | settings))
    with pytest.raises(ModelError, match=told):
        models.load_config(str(folder))
