import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from empg.rundir.group import FileEntry
from empg_sampler.weights import BadPolicy, differences, read_tensors, verify

TENSORS = {
    "a": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "b": torch.randn(5, dtype=torch.bfloat16),
    "empty": torch.empty(0, 3),
    "scalar": torch.tensor(2.5, dtype=torch.float16),
    "ids": torch.tensor([[1, -2]], dtype=torch.int64),
}


def save(path: Path, tensors: dict[str, torch.Tensor]) -> dict[str, tuple[int, str]]:
    save_file(tensors, path, metadata={"format": "pt"})
    return {path.name: entry(path)}


def entry(path: Path) -> tuple[int, str]:
    found = FileEntry.of(path.read_bytes())
    return found.size, found.sha256


def test_what_safetensors_writes_is_read_back(tmp_path: Path) -> None:
    files = save(tmp_path / "x.safetensors", TENSORS)
    assert verify(tmp_path, files) == {name: tuple(tensor.shape) for name, tensor in TENSORS.items()}
    read = dict(read_tensors([tmp_path / "x.safetensors"]))
    assert read.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    files = save(tmp_path / "1.safetensors", {"a": TENSORS["a"]}) | save(
        tmp_path / "2.safetensors", {"b": TENSORS["b"]}
    )
    assert verify(tmp_path, files | {"config.json": (1, "")}) == {"a": (3, 4), "b": (5,)}
    files |= save(tmp_path / "3.safetensors", {"b": TENSORS["b"]})
    with pytest.raises(BadPolicy, match=r"3\.safetensors: tensor 'b' is in two files"):
        verify(tmp_path, files)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    tensor = torch.zeros(1000, dtype=dtype)
    tensor[777] = value
    with pytest.raises(BadPolicy, match="'w' holds a number that is not finite"):
        verify(tmp_path, save(tmp_path / "x.safetensors", {"w": tensor}))


def test_every_flipped_bit_and_every_truncation_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    files = save(path, TENSORS)
    data = path.read_bytes()
    for bit in range(0, 8 * len(data), 13):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(BadPolicy):
            verify(tmp_path, files)
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(BadPolicy):
            verify(tmp_path, files)
        # Even where the manifest was written for the truncated file.
        with pytest.raises(BadPolicy):
            verify(tmp_path, {path.name: entry(path)})


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{",
        b'{"w": 3}',
        b'{"w": {"dtype": "F32", "shape": [1]}}',
        b'{"w": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}',
        b'{"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}',
    ],
)
def test_malformed_headers_are_refused(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(BadPolicy, match="malformed safetensors header"):
        verify(tmp_path, {path.name: entry(path)})


def test_a_policy_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadPolicy, match="no safetensors file"):
        verify(tmp_path, {"config.json": (2, "")})
    with pytest.raises(BadPolicy, match="No such file"):
        verify(tmp_path, {"x.safetensors": (2, "")})


def test_differences_name_tensors() -> None:
    assert differences({"a": (1,)}, {"a": (1,)}) == ""
    assert differences({"a": (1,), "c": (2,)}, {"a": (3,), "b": (4,)}) == (
        "missing ['b']; unexpected ['c']; a has shape [1], not [3]"
    )


def test_a_header_may_list_tensors_in_any_order(tmp_path: Path) -> None:
    header = json.dumps(
        {
            "late": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
            "early": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        }
    ).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + torch.tensor([1.0, 2.0]).numpy().tobytes())
    verify(tmp_path, {path.name: entry(path)})
    assert {name: tensor.item() for name, tensor in read_tensors([path])} == {"early": 1.0, "late": 2.0}
