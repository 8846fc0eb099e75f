import numpy as np
import pytest

torch = pytest.importorskip("torch")
from kvstore import matching  # noqa: E402
from kvstore.matching import nearest  # noqa: E402


def cosines(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """[points, patches] in float64 of [points, width] and [patches, width]."""
    a, b = source.astype(np.float64), target.astype(np.float64)
    return (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T


@pytest.fixture
def vectors() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (3, 5, 16), (3, 40, 16)
    # Norms over four orders of magnitude: a dot product would choose others than the cosine does.
    a, b = (rng.standard_normal(s) * 10 ** rng.uniform(-2, 2, (*s[:2], 1)) for s in shape)
    return a.astype(np.float16), b.astype(np.float16)


def test_each_head_agrees_with_numpy_in_float64(vectors: tuple[np.ndarray, np.ndarray]) -> None:
    source, target = vectors
    patch, similarity = nearest(torch.from_numpy(source), torch.from_numpy(target))
    for head in range(3):
        expected = cosines(source[head], target[head])
        assert patch[head].tolist() == expected.argmax(1).tolist()
        np.testing.assert_allclose(similarity[head], expected.max(1), atol=5e-7)


def test_concatenated_heads_agree_with_numpy_in_float64(vectors: tuple[np.ndarray, np.ndarray]) -> None:
    source, target = vectors
    patch, similarity = nearest(torch.from_numpy(source), torch.from_numpy(target), "concat")
    flat = [array.transpose(1, 0, 2).reshape(array.shape[1], -1) for array in vectors]
    expected = cosines(*flat)
    assert patch.tolist() == [expected.argmax(1).tolist()]
    np.testing.assert_allclose(similarity[0], expected.max(1), atol=5e-7)


def test_both_is_each_head_then_their_concatenation(vectors: tuple[np.ndarray, np.ndarray]) -> None:
    source, target = map(torch.from_numpy, vectors)
    both, each, concat = (nearest(source, target, how)[0].tolist() for how in ("both", "each", "concat"))
    assert both == each + concat


def test_ties_go_to_the_lowest_patch_and_a_zero_vector_is_near_nothing() -> None:
    target = torch.tensor([[[0.0, 0.0], [0.0, 2.0], [3.0, 0.0], [1.0, 0.0], [3.0, 0.0]]])
    source = torch.tensor([[[5.0, 0.0], [0.0, 0.0]]])
    patch, similarity = nearest(source, target)
    assert patch.tolist() == [[2, 0]]
    assert similarity.tolist() == [[1.0, 0.0]]


def test_points_taken_in_chunks_give_the_same(
    vectors: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = map(torch.from_numpy, vectors)
    whole = nearest(source, target, "both")
    monkeypatch.setattr(matching, "CHUNK", 3 * 40 * 2)  # two points at a time
    parts = nearest(source, target, "both")
    assert parts[0].tolist() == whole[0].tolist()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_chooses_the_same_patches(vectors: tuple[np.ndarray, np.ndarray]) -> None:
    source, target = map(torch.from_numpy, vectors)
    on_cpu, on_cuda = nearest(source, target, "both"), nearest(source.cuda(), target.cuda(), "both")
    assert on_cuda[0].tolist() == on_cpu[0].tolist()
    np.testing.assert_allclose(on_cuda[1].cpu(), on_cpu[1], atol=1e-6)
