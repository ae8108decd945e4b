"""What can be said of a saved map in a few figures."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from vslam.evaluation.files import plain
from vslam.mapping.archive import StoredMap


def map_facts(stored: StoredMap, file_bytes: int) -> dict[str, Any]:
    """The content of `vslam map show --json`: plain numbers, strings and None; docs/maps.md explains the keys."""
    map_, points = stored.map, stored.map.points
    alive = points.alive > 0
    xyz, observations = points.xyz[alive], points.observations[alive]
    times = [map_.timestamp_of[keyframe] for keyframe in map_.slot_of]
    meta = dict(stored.meta)
    return plain(
        {
            "saved": meta.pop("saved", None),
            "vslam": meta.pop("vslam", None),
            "sequence": meta.pop("sequence", None),
            "keyframes": len(map_),
            "retired": len(map_.retired),
            "points": len(xyz),
            "observations_per_point": float(observations.mean()) if len(xyz) else 0.0,
            "extent_m": np.ptp(xyz, axis=0) if len(xyz) else [0.0, 0.0, 0.0],
            "first_s": min(times),
            "last_s": max(times),
            "camera": asdict(stored.camera),
            "extractor": stored.extractor,
            "features": stored.features,
            "places": {"model": stored.place_model or None, "vectors": len(stored.place_vectors)},
            "images": len(stored.images),
            "bytes": file_bytes,
            "meta": meta,
        }
    )
