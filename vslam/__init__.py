"""Real-time visual SLAM in Python. The public names, imported when first used."""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOME = {
    "Camera": "vslam.types",
    "Features": "vslam.types",
    "Matches": "vslam.types",
    "RawFrame": "vslam.types",
    "Tracked": "vslam.types",
    "Trajectory": "vslam.types",
    "Frontend": "vslam.frontend",
    "System": "vslam.system",
    "load_config": "vslam.config",
    "VslamError": "vslam.errors",
}
__all__ = [*_HOME, "__version__"]

if TYPE_CHECKING:
    from vslam.config import load_config as load_config
    from vslam.errors import VslamError as VslamError
    from vslam.frontend import Frontend as Frontend
    from vslam.system import System as System
    from vslam.types import Camera as Camera
    from vslam.types import Features as Features
    from vslam.types import Matches as Matches
    from vslam.types import RawFrame as RawFrame
    from vslam.types import Tracked as Tracked
    from vslam.types import Trajectory as Trajectory


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'vslam' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
