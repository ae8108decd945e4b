"""Match two images: python examples/frontend.py FIRST SECOND."""

import sys

import cv2

from vslam import Frontend

first, second = (cv2.imread(file) for file in sys.argv[1:3])
frontend = Frontend(extractor="orb", matcher="mutual", max_keypoints=1000)
a, b = frontend.extract(first), frontend.extract(second)
matches = frontend.match(a, b)
for i, j in matches.pairs[:5]:
    print(f"{a.xy[i].round(1)} -> {b.xy[j].round(1)}")
print(f"{len(a)} and {len(b)} keypoints, {len(matches)} matches")
