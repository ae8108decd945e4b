"""SLAM over a folder with rgb/, depth/ and camera.yaml: python examples/own_images.py FOLDER."""

import sys
from pathlib import Path

import cv2

from vslam import RawFrame, System
from vslam.datasets.camera import read_camera

folder = Path(sys.argv[1])
camera = read_camera(folder / "camera.yaml")
files = zip(sorted(folder.glob("rgb/*")), sorted(folder.glob("depth/*")), strict=True)
with System(camera) as slam:
    for number, (colour, depth) in enumerate(files):
        metres = cv2.imread(str(depth), cv2.IMREAD_UNCHANGED).astype("float32") / camera.depth_scale
        tracked = slam.track(RawFrame(number / camera.fps, cv2.imread(str(colour)), metres))
        where = "no pose" if tracked.T_world_camera is None else tracked.T_world_camera[:3, 3].round(3)
        print(colour.name, tracked.state, where, tracked.reason)
