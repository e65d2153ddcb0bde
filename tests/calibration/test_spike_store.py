from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from calibration.spike_store import SpikeStore
from cos_export.errors import StorageError


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def spikes(seed: int = 0) -> torch.Tensor:
    """270 of them: 34 bytes, the last one not full."""
    return (torch.rand(3, 5, 2, 3, 3, generator=torch.Generator().manual_seed(seed)) < 0.4).float()


def test_spikes_are_kept_in_bits() -> None:
    with SpikeStore() as store:
        kept = store.keep(spikes())
        assert isinstance(kept.bits, np.ndarray) and kept.bits.nbytes == 34
        assert torch.equal(kept.read().float(), spikes())


@pytest.mark.parametrize(
    ("most", "nbytes"), [(1, 34), (3, 68), (4, 102), (7, 102), (255, 270), (256, 304), (1000, 338)]
)
@pytest.mark.parametrize("memory", [0, 2**20])
def test_numbers_of_spikes_take_as_many_bits_as_the_largest(most: int, nbytes: int, memory: int) -> None:
    counts = torch.randint(0, most + 1, (5, 2, 27), generator=torch.Generator().manual_seed(1))
    counts[0, 0, :2] = torch.tensor([0, most])
    with SpikeStore(memory) as store:
        kept = store.keep(counts.float(), most)
        bits = np.load(kept.bits) if isinstance(kept.bits, Path) else kept.bits
        assert bits.nbytes == nbytes and isinstance(kept.bits, Path) == (memory == 0)
        assert torch.equal(kept.read().long(), counts)


def test_memory_is_taken_and_given_back(tmp_path: Path) -> None:
    with SpikeStore(2 * 34) as store:
        kept = [store.keep(spikes(seed)) for seed in range(3)]
        assert [isinstance(k.bits, Path) for k in kept] == [False, False, True]
        store.drop(kept[0])
        kept.append(store.keep(spikes(3)))
        assert not isinstance(kept[3].bits, Path), "in the place of the first"
        for seed in (1, 2, 3):
            assert torch.equal(kept[seed].read().float(), spikes(seed))
        assert len(list(tmp_path.rglob("*.npy"))) == 1
        store.drop(kept[2])
        assert list(tmp_path.rglob("*.npy")) == []
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_made_on_disk_without_need(tmp_path: Path) -> None:
    with SpikeStore(34) as store:
        store.keep(spikes())
        assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: Path, *arguments: object, **options: object) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(StorageError, match=r"No space left on device.*TMPDIR"), SpikeStore(0) as store:
        store.keep(spikes())
    assert list(tmp_path.iterdir()) == []
