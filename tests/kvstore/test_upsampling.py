"""Nearest pixels against torch's own upsampling: F.interpolate, then F.normalize, then argmax, in float64.

That is DIFT's evaluation on SPair-71k (Tang et al. 2023, eval_spair.py): `nn.Upsample(size, mode="bilinear")`
of both maps, the source vector at the keypoint's pixel, cosines with all target pixels, the first highest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch.nn import functional  # noqa: E402

from kvstore import upsampling  # noqa: E402
from kvstore.contracts import Grid  # noqa: E402
from kvstore.matching import TIE  # noqa: E402
from kvstore.upsampling import Upsampled, around  # noqa: E402

Array = np.ndarray[Any, Any]


def whole(rows: int, columns: int, size: tuple[int, int]) -> Grid:
    return Grid(rows, columns, (0, 0, *size))


def upsampled(vectors: Array, grid: Grid, size: tuple[int, int]) -> torch.Tensor:
    """float64 [heads, width, height, width of the image]; the grid covers the image."""
    maps = torch.from_numpy(vectors).double().unflatten(1, (grid.rows, grid.columns)).permute(0, 3, 1, 2)
    return functional.interpolate(maps, size=size[::-1], mode="bilinear", align_corners=False)


def expected(source: Array, target: Array, grid: Grid, size: tuple[int, int]) -> tuple[Array, Array]:
    """Pixel and similarity [heads, points]; among equals (see TIE) the first."""
    maps = functional.normalize(upsampled(target, grid, size).flatten(2), dim=1)
    found = functional.normalize(torch.from_numpy(source).double(), dim=-1) @ maps
    best = found.amax(-1, keepdim=True)
    return (found >= best - TIE).int().argmax(-1).numpy(), best.squeeze(-1).numpy()


def smooth(rng: np.random.Generator, heads: int, grid: Grid, width: int) -> Array:
    """Maps whose neighbours resemble each other, as those of real models do, about a mean that all share."""
    noise = rng.standard_normal((heads, width, grid.rows + 4, grid.columns + 4))
    kernel = np.ones(5) / 5
    for axis in (2, 3):
        noise = np.apply_along_axis(lambda line: np.convolve(line, kernel, "valid"), axis, noise)
    maps = noise + rng.standard_normal((heads, width, 1, 1)) * 0.3
    return maps.reshape(heads, width, -1).transpose(0, 2, 1).astype(np.float16)


def rough(rng: np.random.Generator, heads: int, grid: Grid, width: int) -> Array:
    """Maps of noise, their norms over two orders of magnitude."""
    vectors = rng.standard_normal((heads, grid.patches, width))
    return (vectors * 10 ** rng.uniform(-1, 1, (heads, grid.patches, 1))).astype(np.float16)


SHAPES = [((9, 7), (60, 83)), ((5, 5), (5, 5)), ((1, 6), (40, 9)), ((4, 1), (7, 30)), ((1, 1), (3, 2))]


@pytest.mark.parametrize("made", [smooth, rough])
@pytest.mark.parametrize(("shape", "size"), [*SHAPES, ((8, 9), (5, 4))])
def test_pixels_are_those_of_the_upsampled_maps(made: Any, shape: Any, size: Any) -> None:
    rng = np.random.default_rng(7)
    grid = whole(*shape, size)
    target = made(rng, 3, grid, 16)
    source = rng.standard_normal((3, 25, 16)).astype(np.float32)
    source[:, 5:] += 3 * target[:, rng.integers(0, grid.patches, 20)]
    pixel, similarity = expected(source, target, grid, size)
    found = Upsampled(torch.from_numpy(target), grid, size, "each").nearest(torch.from_numpy(source))
    np.testing.assert_array_equal(found[0], pixel)
    np.testing.assert_allclose(found[1], similarity, atol=1e-6)


def test_heads_together_are_one_longer_vector() -> None:
    rng = np.random.default_rng(3)
    size = (50, 40)
    grid = whole(6, 5, size)
    target, source = smooth(rng, 3, grid, 8), rng.standard_normal((3, 9, 8)).astype(np.float32)
    flat = [array.transpose(1, 0, 2).reshape(1, array.shape[1], -1) for array in (source, target)]
    each, together = expected(source, target, grid, size), expected(*flat, grid, size)
    for heads, wanted in (
        ("each", each),
        ("concat", together),
        ("both", [np.concatenate(pair) for pair in zip(each, together, strict=True)]),
    ):
        found = Upsampled(torch.from_numpy(target), grid, size, heads).nearest(torch.from_numpy(source))
        np.testing.assert_array_equal(found[0], wanted[0])
        np.testing.assert_allclose(found[1], wanted[1], atol=1e-6)


@pytest.mark.parametrize("pixels", [1, 700, 1 << 19])
def test_chunks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch, pixels: int) -> None:
    monkeypatch.setattr(upsampling, "PIXELS", pixels)
    monkeypatch.setattr(upsampling, "CHUNK", pixels)
    rng = np.random.default_rng(1)
    size = (64, 48)
    grid = whole(6, 8, size)
    target, source = smooth(rng, 2, grid, 8), rng.standard_normal((2, 11, 8)).astype(np.float32)
    found = Upsampled(torch.from_numpy(target), grid, size, "each").nearest(torch.from_numpy(source))
    np.testing.assert_array_equal(found[0], expected(source, target, grid, size)[0])


def test_zero_and_opposite_vectors_have_similarity_0_and_nothing_is_undefined() -> None:
    """By hand: from (1, 0) to (-1, 0) over 4 pixels, whose centres lie at 0, 1/4, 3/4 and 1 of the way."""
    target = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
    source = torch.tensor([[[-2.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])
    pixel, similarity = Upsampled(target, whole(1, 2, (4, 1)), (4, 1), "each").nearest(source)
    assert similarity.tolist() == [[1.0, 0.0, 0.0]]
    assert pixel.tolist() == [[2, 0, 0]]
    middle = Upsampled(target, whole(1, 2, (3, 1)), (3, 1), "each")  # the second pixel is a vector of 0
    assert middle.nearest(source)[0].tolist() == [[2, 0, 0]]
    nothing = Upsampled(torch.zeros(1, 4, 3), whole(2, 2, (8, 8)), (8, 8), "each")
    assert nothing.nearest(torch.ones(1, 1, 3))[1].tolist() == [[0.0]]


def sampled(vectors: Array, grid: Grid, size: tuple[int, int], pixels: Array) -> Array:
    patches, weights = around(grid, size, pixels)
    return (vectors[:, patches].astype(np.float32) * weights[..., None]).sum(2)


def test_a_source_is_sampled_at_its_pixel() -> None:
    rng = np.random.default_rng(2)
    for shape, size in SHAPES:
        grid = whole(*shape, size)
        vectors = rough(rng, 2, grid, 4)
        pixels = np.stack([rng.integers(0, n, 30) for n in size], 1)
        maps = upsampled(vectors, grid, size)
        wanted = maps[:, :, pixels[:, 1], pixels[:, 0]].permute(0, 2, 1).numpy()
        np.testing.assert_allclose(sampled(vectors, grid, size, pixels), wanted, rtol=1e-4, atol=1e-4)


def test_a_grid_beyond_or_within_the_image_is_placed_by_its_box() -> None:
    """By hand: patches of 10 pixels whose centres are at 0 and 10, over an image of pixels -0 to 30."""
    vectors = np.array([[[1.0, 0.0], [0.0, 1.0]]], np.float32)
    grid = Grid(1, 2, (-5, 0, 15, 8))
    pixels = np.array([[0, 0], [2, 3], [9, 7], [10, 0], [29, 7]])
    fraction = [0.05, 0.25, 0.95, 1, 1]
    found = sampled(vectors, grid, (30, 8), pixels)[0]
    np.testing.assert_allclose(found, [[1 - f, f] for f in fraction], atol=1e-6)
    source = torch.tensor([[[0.75, 0.25], [0.0, 1.0]]])
    pixel, similarity = Upsampled(torch.from_numpy(vectors), grid, (30, 8), "each").nearest(source)
    assert pixel.tolist() == [[2, 10]]
    np.testing.assert_allclose(similarity, [[1.0, 1.0]], atol=1e-6)


@pytest.mark.parametrize(("made", "share"), [(smooth, 0.1), (rough, 1.0)])
def test_few_cells_are_looked_at_where_neighbours_resemble_each_other(
    made: Any, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    size = (300, 300)
    grid = whole(20, 20, size)
    target = made(rng, 1, grid, 32)
    looked: list[int] = []
    real = Upsampled._similarities

    def counted(self: Upsampled, dots: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        looked.append(len(cells))
        return real(self, dots, cells)

    monkeypatch.setattr(Upsampled, "_similarities", counted)
    source = torch.from_numpy(target[:, ::8])
    Upsampled(torch.from_numpy(target), grid, size, "each").nearest(source)
    assert sum(looked) / (source.shape[1] * 19 * 19) < share
