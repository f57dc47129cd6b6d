"""Where the curves of a training go beside the log file."""

from __future__ import annotations

import importlib.util

from mmengine.config import Config

TENSORBOARD = "TensorboardVisBackend"


def choose_log_backends(config: Config) -> None:
    """Add TensorBoard to a config's logging backends where it is installed.

    Also takes the visualizer's fixed name away: mmengine then names it after the run. Runs of one
    process that share a name write into the first one's files.
    """
    visualizer = config.get("visualizer")
    if not visualizer:
        return
    visualizer.pop("name", None)
    backends = visualizer.setdefault("vis_backends", [])
    installed = importlib.util.find_spec("tensorboard") is not None
    if installed and all(backend["type"] != TENSORBOARD for backend in backends):
        visualizer.vis_backends = [*backends, dict(type=TENSORBOARD)]
