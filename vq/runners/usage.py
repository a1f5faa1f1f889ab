"""What a process uses of its machine: memory, processors, and the device. What cannot be known is left out."""

from __future__ import annotations

import logging
import os
import resource
import sys
import time
from pathlib import Path

import torch

logger = logging.getLogger('vq')

UNIT = 2**20 if sys.platform == 'darwin' else 1024  # of ru_maxrss in a MiB
STATM = Path('/proc/self/statm')  # of Linux


class Usage:
    """Figures of an interval, for ``timing`` of the log.

    =================== ======================================================================================
    memory_mb           the most that tensors took on the GPU; on other devices, that the process took
    resident_mb         what the process takes of the memory of the host now (Linux)
    processors          processor seconds of this process in each second: 2.0 are two busy cores
    device_memory       share of the memory of the GPU that is taken, by all processes
    device_utilization  share of the last second or less in which the GPU ran a kernel (with nvidia-ml-py)
    =================== ======================================================================================

    Without a host sync: the driver is asked, not the device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.asks = device, device.type == 'cuda'
        self.start()

    def start(self) -> None:
        self._wall, self._busy = time.perf_counter(), time.process_time()

    def figures(self) -> dict[str, float]:
        """Since ``start``."""
        seconds = max(time.perf_counter() - self._wall, 1e-9)
        found: dict[str, float] = {'memory_mb': round(self._most())}
        if (pages := self._pages()) is not None:
            found['resident_mb'] = round(pages * os.sysconf('SC_PAGE_SIZE') / 2**20)
        found['processors'] = round((time.process_time() - self._busy) / seconds, 3)
        if self.device.type == 'cuda':
            free, total = torch.cuda.mem_get_info(self.device)
            found['device_memory'] = round(1 - free / total, 4)
            if (busy := self._utilization()) is not None:
                found['device_utilization'] = busy
        return found

    def _most(self) -> float:
        if self.device.type == 'cuda':
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / UNIT

    def _pages(self) -> int | None:
        try:
            return int(STATM.read_text().split()[1])
        except (OSError, IndexError, ValueError):
            return None

    def _utilization(self) -> float | None:
        """None, and said once, where the driver cannot be asked."""
        if not self.asks:
            return None
        try:
            return torch.cuda.utilization(self.device) / 100
        except Exception as error:  # the package is missing, or an error of its own kind: no permission, no such function
            self.asks = False
            logger.info(
                'the utilization of %s is not logged: %s', self.device, str(error).splitlines()[0] if str(error) else error
            )
            return None
