"""Scans where the network computes: all in one tensor of its device, or read ahead batch by batch."""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.utils.data import Dataset

MEMORY_SHARE = {"cuda": 0.5, "cpu": 0.125}  # chosen by us: of a GPU's free memory; of a machine's, which runs share


class Held:
    """Scans ready for training or validation; the way in which they are held changes no bit of them.

    Args:
        scans: Items (volume (1, Z, Y, X), target (T,), known (T,)).
        device: Where batches are wanted.
        dtype: Of the volumes; as they come if not given.
        arranged: What is held of a volume; the volume itself if not given.
    """

    def __init__(
        self,
        scans: Dataset,
        device: torch.device,
        *,
        dtype: torch.dtype | None,
        arranged: Callable[[Tensor], Tensor] | None = None,
    ):
        self.scans, self.device, self.arranged = scans, device, arranged or torch.Tensor.contiguous
        self.dtype = dtype or scans[0][0].dtype
        self._reader = ThreadPoolExecutor(1)
        self._coming: dict[tuple[int, ...], object] = {}
        first = self._read([0])
        n_bytes = len(scans) * first[0].nbytes
        self.fits = n_bytes <= MEMORY_SHARE[device.type] * _memory_bytes(device)
        self._all = self._filled(first) if self.fits else None

    def batch(self, index: Sequence[int], ahead: Sequence[int] = ()) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Volumes that are held, the numbers among them of the scans asked for (B,), and their target and known (B, T).

        Args:
            index: Numbers of scans.
            ahead: The batch to be asked for next, which is read meanwhile.
        """
        if self._all:
            volumes, target, known = self._all
            place = torch.tensor(index, device=self.device)
            return volumes, place, target[place], known[place]
        coming = self._coming.pop(tuple(index), None)
        if ahead:
            self._coming = {tuple(ahead): self._reader.submit(self._read, ahead)}
        volumes, target, known = coming.result() if coming else self._read(index)
        return volumes, torch.arange(len(index), device=self.device), target, known

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Volumes, target and known of all scans, batch by batch."""
        parts = [*torch.arange(len(self.scans)).split(batch_size), torch.arange(0)]
        for part, following in itertools.pairwise(parts):
            volumes, place, target, known = self.batch(part.tolist(), following.tolist())
            yield volumes[place], target, known

    def _read(self, index: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        items = [self.scans[k] for k in index]
        volumes = torch.stack([self.arranged(volume).to(self.dtype) for volume, _, _ in items])
        parts = (volumes, *(torch.stack([item[part] for item in items]) for part in (1, 2)))
        if self.device.type == "cuda":
            parts = (part.pin_memory() for part in parts)
        return tuple(part.to(self.device, non_blocking=True) for part in parts)

    def _filled(self, first: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
        """All scans, read one by one into tensors of their full length."""
        whole = tuple(part.new_empty(len(self.scans), *part.shape[1:]) for part in first)
        for k in range(len(self.scans)):
            for part, read in zip(whole, self._read([k]), strict=True):
                part[k] = read[0]
        return whole


def _memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
