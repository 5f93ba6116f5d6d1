"""The load of the driver's machine, under the names that MLflow's own monitor uses."""

import contextlib


class SystemMetrics:
    """Reads CPU, memory, disk, network, and the GPUs where there are any.

    MLflow's own `SystemMetricsMonitor` gives up at the first call that fails.
    """

    def __init__(self) -> None:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

        self._monitors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
        with contextlib.suppress(Exception):  # no GPU, no driver, or no nvidia-ml-py
            self._monitors.append(GPUMonitor())
        self.read()  # psutil's first CPU reading is 0

    def read(self) -> dict[str, float]:
        """Reads all monitors once: `system/cpu_utilization_percentage` and so on."""
        values: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            values |= {f"system/{k}": float(v) for k, v in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        return values
