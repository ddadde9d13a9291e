"""Checkpoint folders: exact round trips, every refusal by name, and no way to lose the previous checkpoint."""

import json
import os
from dataclasses import asdict, dataclass, field, replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from kinelib.learning import checkpoints
from kinelib.learning.checkpoints import CheckpointError, inherited_licence, load, read_config, save, write_card


@dataclass(frozen=True)
class InnerConfig:
    """A config inside a config."""

    sizes: tuple[int, ...] = (3, 5)  # of something
    name: str | None = None  # of something


@dataclass(frozen=True)
class NetConfig:
    """What the networks of these tests are built from."""

    width: int = 6  # channels
    grid: tuple[int, int] = (2, 3)  # rows, columns
    scale: float = 0.1  # any number
    inner: InnerConfig = field(default_factory=InnerConfig)  # nested


class Net(nn.Module):
    """Has what real networks have: parameters, a buffer, a non-persistent buffer, integers, tied weights."""

    def __init__(self, config: NetConfig):
        super().__init__()
        self.config = config
        self.inward = nn.Linear(4, config.width)
        self.outward = nn.Linear(4, config.width)
        self.outward.weight = self.inward.weight
        self.register_buffer("frequencies", torch.randn(config.width))
        self.register_buffer("table", torch.randn(3, config.width))
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("axis", torch.arange(config.grid[0]), persistent=False)

    def forward(self, x):
        return self.outward(x) * self.frequencies + self.inward(x)


class OtherNet(Net):
    """Another name for the same tensors."""


CONFIG = NetConfig(width=6, grid=(2, 5), scale=1 / 3, inner=InnerConfig(sizes=(1, 2, 3), name="x"))


@pytest.fixture
def net():
    torch.manual_seed(3)
    return Net(CONFIG)


@pytest.fixture
def folder(tmp_path, net):
    return save(tmp_path / "deep" / "net", net, card="# A card", extra={"mean": [0.5, 1.5]})


def edit_config(folder, change):
    path = folder / "config.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def snapshot(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def leftovers(folder):
    return [path.name for path in folder.parent.iterdir() if path != folder]


def test_round_trip_gives_the_same_function_config_and_extra(folder, net):
    back = load(folder, Net, NetConfig)
    x = torch.randn(5, 4)
    assert torch.equal(back(x), net(x))
    assert back.config == net.config
    assert not back.training
    assert back.outward.weight is back.inward.weight
    assert read_config(folder)["extra"] == {"mean": [0.5, 1.5]}
    assert sorted(snapshot(folder)) == ["card.md", "config.json", "model.safetensors"]
    assert leftovers(folder) == []


def test_loading_does_not_shift_the_callers_random_numbers(folder):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    load(folder, Net, NetConfig)
    assert torch.equal(torch.rand(3), expected)


def test_a_saved_folder_is_readable_by_others(folder):
    (folder.parent / "ordinary").mkdir()
    assert folder.stat().st_mode == (folder.parent / "ordinary").stat().st_mode


@pytest.mark.parametrize("missing", ["folder", "config.json", "model.safetensors"])
def test_what_is_missing_is_named(folder, missing):
    if missing == "folder":
        folder = folder.parent / "elsewhere"
    else:
        (folder / missing).unlink()
    with pytest.raises(FileNotFoundError, match="elsewhere" if missing == "folder" else missing):
        load(folder, Net, NetConfig)


@pytest.mark.parametrize("text", ["", "not json", "[1, 2]", '{"model": "gpt2"}', '{"class": "Net", "version": "1"}'])
def test_a_foreign_config_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match="config.json"):
        load(folder, Net, NetConfig)


def test_another_class_is_refused_by_both_names(folder):
    with pytest.raises(CheckpointError, match="holds a Net, not a OtherNet"):
        load(folder, OtherNet, NetConfig)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_weights_are_refused(folder, keep):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:keep])
    assert len(path.read_bytes()) < len(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        load(folder, Net, NetConfig)


def test_a_foreign_file_under_the_weights_name_is_refused(folder):
    torch.save({"a": torch.zeros(3)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged or not a safetensors file"):
        load(folder, Net, NetConfig)


def test_unknown_and_missing_fields_are_named_even_where_a_default_exists(folder):
    def change(content):
        content["arguments"]["widht"] = content["arguments"].pop("width")

    edit_config(folder, change)
    with pytest.raises(CheckpointError, match="unknown field 'widht', missing field 'width'"):
        load(folder, Net, NetConfig)


def test_fields_of_a_nested_config_are_checked_too(folder):
    edit_config(folder, lambda content: content["arguments"]["inner"].pop("name"))
    with pytest.raises(CheckpointError, match="InnerConfig: missing field 'name'"):
        load(folder, Net, NetConfig)


def test_a_config_that_disagrees_with_the_tensors_is_refused_by_name_and_shape(folder):
    edit_config(folder, lambda content: content["arguments"].update(width=8))
    with pytest.raises(CheckpointError, match=r"inward\.weight has shape \(6, 4\), the network wants \(8, 4\)"):
        load(folder, Net, NetConfig)


def test_arguments_the_network_cannot_be_built_from_are_refused(folder):
    edit_config(folder, lambda content: content["arguments"].update(width="six"))
    with pytest.raises(CheckpointError, match="Net refuses these arguments"):
        load(folder, Net, NetConfig)


def test_missing_unexpected_and_mistyped_tensors_are_named(folder):
    edit_tensors(folder, lambda tensors: tensors.pop("inward.bias"))
    with pytest.raises(CheckpointError, match=r"missing inward\.bias"):
        load(folder, Net, NetConfig)
    edit_tensors(folder, lambda tensors: tensors.update({"inward.bias": torch.zeros(6), "stray": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match="unexpected stray"):
        load(folder, Net, NetConfig)
    edit_tensors(folder, lambda tensors: (tensors.pop("stray"), tensors.update(count=torch.tensor(7.0))))
    with pytest.raises(CheckpointError, match=r"count has type torch\.float32, the network wants torch\.int64"):
        load(folder, Net, NetConfig)


def test_refused_tensors_leave_the_network_unchanged(net):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    wrong = {name: torch.zeros_like(tensor) for name, tensor in before.items()} | {"stray": torch.zeros(1)}
    with pytest.raises(CheckpointError):
        checkpoints.load_tensors(net, wrong, source="here")
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_nothing_is_overwritten_without_permission(folder, net):
    before = snapshot(folder)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save(folder, net, card="# Another")
    assert snapshot(folder) == before


def test_overwriting_replaces_the_whole_checkpoint_and_leaves_nothing_behind(folder):
    other = Net(replace(CONFIG, width=9))
    save(folder, other, card="# Another", overwrite=True)
    assert load(folder, Net, NetConfig).config.width == 9
    assert (folder / "card.md").read_text() == "# Another\n"
    assert leftovers(folder) == []


def test_a_folder_with_other_files_is_never_replaced(folder, net):
    (folder / "notes.txt").write_text("mine")
    before = snapshot(folder)
    with pytest.raises(FileExistsError, match=r"notes\.txt"):
        save(folder, net, card="# Another", overwrite=True)
    assert snapshot(folder) == before


def test_a_file_in_the_way_is_refused_and_an_empty_folder_is_used(tmp_path, net):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="is a file"):
        save(tmp_path / "file", net, card="# A card", overwrite=True)
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    save(tmp_path / "empty", net, card="# A card")
    assert load(tmp_path / "empty", Net, NetConfig).config == CONFIG


@pytest.mark.parametrize("fails", ["save_file", "flush_to_disk"])
def test_a_write_that_fails_leaves_the_old_checkpoint_intact(folder, net, monkeypatch, fails):
    before = snapshot(folder)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, fails, full)
    with pytest.raises(OSError, match="No space left"):
        save(folder, net, card="# Another", overwrite=True)
    assert snapshot(folder) == before
    assert leftovers(folder) == []


def test_a_rename_that_fails_brings_the_old_checkpoint_back(folder, net, monkeypatch):
    before, rename = snapshot(folder), os.rename

    def refuse_the_new(source, target):
        if "writing" in str(source):
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse_the_new)
    with pytest.raises(OSError, match="Input/output"):
        save(folder, net, card="# Another", overwrite=True)
    assert snapshot(folder) == before
    assert leftovers(folder) == []


def test_a_power_cut_between_the_two_renames_is_explained(folder, net, monkeypatch):
    rename = os.rename

    def cut_after_the_first(source, target):
        if source != folder:
            raise OSError("the power is gone, also for whoever wants to tidy up")
        rename(source, target)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="power"):
        patch.setattr(os, "rename", cut_after_the_first)
        save(folder, net, card="# Another", overwrite=True)
    with pytest.raises(FileNotFoundError, match=r"interrupted.*\.net\.previous.*rename it back"):
        load(folder, Net, NetConfig)
    assert load(folder.with_name(".net.previous"), Net, NetConfig).config == CONFIG


def test_a_broken_network_is_not_saved(tmp_path, net):
    with torch.no_grad():
        net.inward.bias[2] = float("nan")
    with pytest.raises(CheckpointError, match=r"inward\.bias holds NaN"):
        save(tmp_path / "net", net, card="# A card")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "config", [replace(CONFIG, grid=[2, 5]), replace(CONFIG, scale=float("nan")), replace(CONFIG, scale=torch.ones(()))]
)
def test_a_config_that_json_would_change_is_not_saved(tmp_path, config):
    net = Net(CONFIG)
    net.config = config
    with pytest.raises(CheckpointError, match="JSON"):
        save(tmp_path / "net", net, card="# A card")
    assert list(tmp_path.iterdir()) == []


def test_a_network_without_a_config_cannot_be_saved(tmp_path):
    with pytest.raises(CheckpointError, match="Linear needs a `config`"):
        save(tmp_path / "net", nn.Linear(2, 2), card="# A card")


def test_every_argument_is_written_down(folder):
    content = read_config(folder)
    assert content["class"] == "Net"
    assert content["arguments"].keys() == asdict(CONFIG).keys()
    assert content["arguments"]["grid"] == [2, 5]


CARD = {
    "data": "512 procedural scenes",
    "licence": "MIT",
    "command": "python -m kinelib train zipmo",
    "metrics": {"error": 2.71828, "scenes": 256},
}


def test_a_card_says_everything():
    text = write_card("Track autoencoder", commit="abc123", notes="Small.", **CARD)
    for part in ("# Track autoencoder", "512 procedural scenes", "MIT", "abc123", "    python -m kinelib train zipmo"):
        assert part in text
    assert "| error | 2.718 |\n| scenes | 256 |\n\nSmall." in text


@pytest.mark.parametrize("part", ["data", "licence", "command"])
def test_a_card_with_a_gap_is_refused(part):
    with pytest.raises(ValueError, match=part):
        write_card("Title", **{**CARD, part: "  "})


def test_half_stores_matrices_as_float16_and_nothing_else(tmp_path, net):
    save(tmp_path / "half", net, card="# Half\n", half=True)
    stored = load_file(tmp_path / "half" / "model.safetensors")
    matrices = {name for name, tensor in stored.items() if tensor.ndim > 1}
    assert "table" in matrices and {name for name, tensor in stored.items() if tensor.dtype == torch.float16} == matrices
    again = load(tmp_path / "half", Net, NetConfig)
    for name, tensor in net.state_dict().items():
        assert again.state_dict()[name].dtype == tensor.dtype
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=1e-3 if name in matrices else 0, atol=1e-7)


def test_a_licence_stays_with_the_weights(tmp_path):
    card = lambda licence: write_card("a", data="b", licence=licence, command="c", metrics={}, commit="d")
    (tmp_path / "card.md").write_text(card("CC BY-NC 4.0, since the clips are under it."))
    assert inherited_licence("MIT.", None) == "MIT."
    assert inherited_licence("MIT.", tmp_path).startswith("CC BY-NC 4.0, since the clips are under it. (Of the weights")
    both = inherited_licence("CC BY-SA 4.0.", tmp_path)
    assert "CC BY-SA" in both and "CC BY-NC" in both
    (tmp_path / "card.md").write_text(card("MIT."))
    assert inherited_licence("MIT.", tmp_path) == "MIT."
    (tmp_path / "card.md").unlink()
    with pytest.raises(CheckpointError, match="names no licence"):
        inherited_licence("MIT.", tmp_path)
