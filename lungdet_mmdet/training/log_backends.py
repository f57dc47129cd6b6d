"""Where the curves of a training go beside the log file."""

from __future__ import annotations

import importlib.util

from mmengine.config import Config

TENSORBOARD = "TensorboardVisBackend"


def add_tensorboard(config: Config) -> bool:
    """Add TensorBoard to a config's logging backends where it is installed.

    Returns
    -------
    bool
        Whether it logs there now.
    """
    visualizer = config.get("visualizer")
    if not visualizer or importlib.util.find_spec("tensorboard") is None:
        return False
    backends = visualizer.setdefault("vis_backends", [])
    if all(backend["type"] != TENSORBOARD for backend in backends):
        visualizer.vis_backends = [*backends, dict(type=TENSORBOARD)]
    return True
