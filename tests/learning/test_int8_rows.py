"""Bytes for matrices: rounding within its bound, everything else exact, and checkpoints that load as before."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from kinelib.learning.checkpoints import load, save
from kinelib.learning.int8_rows import compress, pack, unpack


@dataclass(frozen=True)
class Config:
    """Of a network with a matrix, a kernel, a vector and a counter."""

    width: int = 16  # channels


class Net(nn.Module):
    """Small, with every kind of tensor."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.linear = nn.Linear(config.width, config.width)
        self.kernel = nn.Conv1d(config.width, 4, 3)
        self.register_buffer("steps", torch.tensor(3))


def test_rounding_stays_within_its_bound():
    torch.manual_seed(0)
    tensors = {
        "a": torch.randn(5, 7) * 10 ** torch.arange(-3.0, 2.0)[:, None],
        "b": torch.randn(4, 3, 2),
        "c": torch.randn(9),
    }
    tensors |= {"none": torch.zeros(2, 3), "count": torch.arange(6).view(2, 3)}
    again = unpack(pack(tensors))
    assert again.keys() == tensors.keys()
    for name in ("a", "b"):
        bound = tensors[name].flatten(1).abs().amax(1) / 254 * 1.001
        assert ((again[name] - tensors[name]).flatten(1).abs().amax(1) <= bound).all()
    for name in ("c", "none", "count"):
        assert torch.equal(again[name], tensors[name])
    assert pack(tensors)["a"].dtype == torch.int8


def test_a_compressed_checkpoint_loads_and_is_smaller(tmp_path):
    net = Net(Config(width=64))
    save(tmp_path / "net", net, card="# Net\n", half=True)
    before = load(tmp_path / "net", Net, Config)
    size = (tmp_path / "net" / "model.safetensors").stat().st_size
    compress(tmp_path / "net")
    assert (tmp_path / "net" / "model.safetensors").stat().st_size < 0.75 * size
    again = load(tmp_path / "net", Net, Config)
    x = torch.randn(8, 64)
    torch.testing.assert_close(again.linear(x), before.linear(x), atol=0.02, rtol=0)
    assert torch.equal(again.linear.bias, before.linear.bias) and again.steps == 3
    content = (tmp_path / "net" / "model.safetensors").read_bytes()
    compress(tmp_path / "net")
    assert (tmp_path / "net" / "model.safetensors").read_bytes() == content


def test_what_cannot_be_packed_is_named(tmp_path):
    with pytest.raises(ValueError, match="linear holds NaN"):
        pack({"linear": torch.full((2, 2), torch.nan)})
    with pytest.raises(FileNotFoundError, match="no weights"):
        compress(tmp_path)
