"""The gauges of GPUs, with a stand-in for NVML: the machines of these tests have none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from vllm_vlinders.metrics.gpus import open_gpus


class Error(Exception):
    pass


def fail(*_arguments: Any) -> Any:
    raise Error


def nvml(**others: Any) -> Any:
    functions = {
        "NVMLError": Error,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 4,
        "nvmlDeviceGetHandleByIndex": lambda number: number,
        "nvmlDeviceGetMemoryInfo": lambda number: SimpleNamespace(used=number * 10, total=80),
        "nvmlDeviceGetUtilizationRates": lambda number: SimpleNamespace(gpu=number * 25),
    }
    return SimpleNamespace(**{**functions, **others})


def shown(name: str, number: int) -> float | None:
    return REGISTRY.get_sample_value(f"vlinders_gpu_{name}", {"gpu_id": str(number)})


def test_the_visible_ones_are_shown() -> None:
    gpus = open_gpus(nvml(), {"CUDA_VISIBLE_DEVICES": "1,3"})
    assert gpus is not None

    gpus.refresh()

    assert [shown("memory_used", number) for number in range(4)] == [None, 10, None, 30]
    assert [shown("memory_total", number) for number in (1, 3)] == [80, 80]
    assert [shown("utilization", number) for number in (1, 3)] == [0.25, 0.75]


@pytest.mark.parametrize("visible", ["", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"])
def test_all_are_shown_where_none_is_chosen_by_number(visible: str) -> None:
    gpus = open_gpus(nvml(), {"CUDA_VISIBLE_DEVICES": visible})
    assert gpus is not None

    gpus.refresh()

    assert shown("utilization", 2) == 0.5


def test_what_nvml_cannot_say_stays_absent() -> None:
    assert open_gpus(nvml(nvmlInit=fail), {}) is None
    gpus = open_gpus(nvml(nvmlDeviceGetUtilizationRates=fail), {"CUDA_VISIBLE_DEVICES": "7"})
    assert gpus is not None

    gpus.refresh()

    assert (shown("memory_used", 7), shown("utilization", 7)) == (70, None)
