"""The GPUs of this host, as NVML sees them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from vllm_vlinders.metrics.catalogue import GPU_MEMORY_TOTAL, GPU_MEMORY_USED, GPU_UTILIZATION
from vllm_vlinders.metrics.families import gauge

_PERCENT = 100


class Gpus:
    """Those of ``CUDA_VISIBLE_DEVICES``, or all.

    Args:
        nvml: the module pynvml.
        environ: the environment.
    """

    def __init__(self, nvml: Any, environ: Mapping[str, str] = os.environ) -> None:
        self._nvml = nvml
        nvml.nvmlInit()
        visible = environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        numbers = [int(each) for each in visible if each.strip().isdigit()]
        self._handles = {
            str(number): nvml.nvmlDeviceGetHandleByIndex(number)
            for number in numbers or range(nvml.nvmlDeviceGetCount())
        }

    def refresh(self) -> None:
        """Set the gauges; those that a GPU does not support stay absent."""
        for number, handle in self._handles.items():
            try:
                memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
                gauge(GPU_MEMORY_USED).labels(number).set(memory.used)
                gauge(GPU_MEMORY_TOTAL).labels(number).set(memory.total)
                busy = self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu
                gauge(GPU_UTILIZATION).labels(number).set(busy / _PERCENT)
            except self._nvml.NVMLError:
                continue


def open_gpus(nvml: Any, environ: Mapping[str, str] = os.environ) -> Gpus | None:
    """Return the GPUs; None where NVML does not work."""
    try:
        return Gpus(nvml, environ)
    except nvml.NVMLError:
        return None
