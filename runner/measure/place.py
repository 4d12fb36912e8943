"""Where a worker lives. A value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Place:
    """devices: that its model may use. The rest stays empty for a worker in the driver's own process.

    node: its address. node_id: as Ray names it. gpus: that Ray gave it, with `cuda_visible_devices` as the process
    sees it.
    """

    devices: tuple[str, ...] = ()
    pid: int = 0
    node: str = ""
    node_id: str = ""
    gpus: tuple[str, ...] = ()
    cuda_visible_devices: str = ""

    def document(self) -> dict[str, Any]:
        devices = {"devices": list(self.devices)}
        if not self.pid:
            return devices
        process = {"pid": self.pid, "node": self.node, "node_id": self.node_id, "gpus": list(self.gpus)}
        return process | {"cuda_visible_devices": self.cuda_visible_devices} | devices
