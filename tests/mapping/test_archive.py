"""Saved maps: the loaded map is the saved one, a file that is not whole is refused, a kill leaves the old map."""

import os
import struct
import subprocess
import sys
import time
from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mapping.map_of_points import make_map
from tests.mapping.test_map import MOVES, Play, check_books
from tests.world import CAMERA, ByNumber, filmed, scatter, see
from vslam.config import ExtractorConfig, MappingConfig, load_config
from vslam.errors import VslamError
from vslam.frontend import make_extractor
from vslam.geometry import se3
from vslam.mapping import container, storage
from vslam.mapping.archive import StoredMap, check_compatible, features_key, load_map, save_map
from vslam.mapping.container import read_container, write_container
from vslam.mapping.local_map import build_local_map
from vslam.mapping.local_mapper import LocalMapper
from vslam.mapping.map import Map, Retired, covisible
from vslam.system import System
from vslam.types import Features, Frame, Grid, KeyframeRequest, LocalMap, Surface

ROOT = Path(__file__).resolve().parents[2]


def stored(map_: Map) -> StoredMap:
    return StoredMap(map_, CAMERA, "orb", "orb")


@cache
def small_file() -> bytes:
    """A map of two keyframes as bytes."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        save_map(Path(folder) / "m", stored(make_map(2, world=scatter(20)).map))
        return (Path(folder) / "m").read_bytes()


def through_file(whole: StoredMap, folder: Path) -> StoredMap:
    save_map(folder / "map.vslam", whole)
    return load_map(folder / "map.vslam")


def check_same_array(a: np.ndarray, b: np.ndarray) -> None:
    assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def check_same_value(a, b) -> None:
    """Frames, features and so on: every field alike to the last bit, arrays owned, aligned and writable."""
    for name in (each.name for each in fields(a)):
        one, two = getattr(a, name), getattr(b, name)
        if isinstance(one, np.ndarray):
            check_same_array(one, two)
            assert two.flags.c_contiguous and two.flags.writeable and two.flags.aligned
        elif isinstance(one, Features | Grid | Surface):
            check_same_value(one, two)
        else:
            assert one == two


def check_same_map(a: Map, b: Map) -> None:
    """Whatever is alive is the same, to the last bit, in the same rows and slots."""
    assert list(a.slot_of.items()) == list(b.slot_of.items()) and list(a.frames) == list(b.frames)
    assert a.timestamp_of == b.timestamp_of and a.epoch == b.epoch and list(a.retired) == list(b.retired)
    rows, slots = np.flatnonzero(a.points.alive), np.array(list(a.slot_of.values()))
    assert np.array_equal(rows, np.flatnonzero(b.points.alive))
    for name in a.points.fields:
        check_same_array(getattr(a.points, name)[rows], getattr(b.points, name)[rows])
    assert a.keyframes.fields == b.keyframes.fields
    for name in a.keyframes.fields:
        one, two = getattr(a.keyframes, name), getattr(b.keyframes, name)
        for slot in slots:
            used = slice(a.keyframes.count[slot]) if name in storage.PER_FEATURE else ...
            check_same_array(one[slot][used], two[slot][used])
    for slot in slots.tolist():
        check_same_value(a.frames[slot], b.frames[slot])
    for keyframe in range(len(a.timestamp_of)):
        assert (keyframe in a) == (keyframe in b)
        if keyframe in a:
            check_same_array(a.pose(keyframe), b.pose(keyframe))
    check_books(b)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from(MOVES), max_size=30), st.booleans())
def test_loaded_map_is_the_saved_one_whatever_happened_before(tmp_path_factory, seed, moves, has_places):
    play = Play(seed)
    play.add()
    for move in moves:
        getattr(play, move)()
    play.map.epoch = seed % 5
    whole = stored(play.map)
    if has_places:
        vectors = play.rng.normal(size=(len(play.map), 8)).astype(np.float32)
        ids = np.array(list(play.map.slot_of))
        whole = replace(whole, place_model="gem-1", place_ids=ids, place_vectors=vectors, images={0: "é 1.png"})
    found = through_file(whole, tmp_path_factory.mktemp("map"))
    check_same_map(play.map, found.map)
    assert np.array_equal(found.place_ids, whole.place_ids) and found.place_ids.dtype == np.int64
    check_same_array(found.place_vectors, whole.place_vectors)
    assert (found.place_model, found.images) == (whole.place_model, whole.images)


def test_camera_features_and_meta_come_back(tmp_path):
    camera = replace(CAMERA, distortion=(0.1, -0.2, 1e-3, 2e-3, 0.3), fx=np.float64(0.1) + 262, depth_scale=1000.0)
    whole = StoredMap(make_map(2).map, camera, "superpoint", "superpoint-1f", meta={"sequence": "room", "list": [1]})
    found = through_file(whole, tmp_path)
    assert found.camera == camera and found.camera.distortion == camera.distortion
    assert (found.extractor, found.features, found.name) == ("superpoint", "superpoint-1f", str(tmp_path / "map.vslam"))
    assert found.meta.items() >= {"sequence": "room", "list": [1]}.items()
    assert set(found.meta) == {"sequence", "list", "vslam", "saved"}


@pytest.mark.parametrize("name", ["orb", "sift"])
def test_map_of_a_run_is_kept_and_can_be_gone_on_with(name, tmp_path, monkeypatch):
    """What mapping makes of the next keyframe is the same in the saved map and in the loaded one."""
    config = load_config(None, [f"extractor.name={name}", "extractor.max_keypoints=400", "place.name=none"])
    process, asked = LocalMapper.process, []
    with System(CAMERA, config, "deterministic") as system:
        monkeypatch.setattr(
            LocalMapper, "process", lambda self, request, _: (asked.append(self), process(self, request))
        )
        for frame in filmed(20):
            system.track(frame)
        before = asked[-1]
        found = through_file(StoredMap(before.map, CAMERA, name, features_key(config.extractor)), tmp_path)
        check_same_map(before.map, found.map)
        monkeypatch.setattr(LocalMapper, "process", lambda self, request, _: asked.append(request))
        for frame in filmed(40)[20:]:
            system.track(frame)
    slot = before.map.slot_of[max(before.map.slot_of)]
    for one, two in zip(covisible(before.map, slot), covisible(found.map, slot), strict=True):
        check_same_array(one, two)
    check_same_local_map(build_local_map(before.map, slot, 20), build_local_map(found.map, slot, 20))
    after = LocalMapper(CAMERA, make_extractor(config.extractor), config.mapping, 400)
    after.map = found.map
    request = next(each for each in asked if isinstance(each, KeyframeRequest))
    for mapper in (before, after):
        process(mapper, request)
    check_books(after.map)
    assert list(after.map.slot_of) == list(before.map.slot_of)
    assert after.map.point_count == before.map.point_count
    last = max(after.map.slot_of)
    np.testing.assert_allclose(after.map.pose(last), before.map.pose(last), atol=1e-9)


def check_same_local_map(a: LocalMap, b: LocalMap) -> None:
    for name in ("row", "generation", "xyz", "normal", "size", "words", "in_reference"):
        check_same_array(getattr(a, name), getattr(b, name))
    assert a.reference == b.reference and list(a.T_cw) == list(b.T_cw)
    assert all(np.array_equal(a.T_cw[k], b.T_cw[k]) for k in a.T_cw)
    for name in ("T_cw", "xyz", "normal"):
        check_same_array(getattr(a.surfaces, name), getattr(b.surfaces, name))


def test_loaded_map_grows(tmp_path):
    made = make_map(3)
    found = through_file(stored(made.map), tmp_path).map
    mapper = LocalMapper(CAMERA, ByNumber(), MappingConfig(), 400)
    mapper.map = found
    for k in range(3, 50):
        T_cw = se3.exp([0.01 * k, 0, 0, 0, 0.005 * k, 0])
        frame, _ = see(made.points, T_cw, float(k), seed=k)
        none = np.full(len(frame), -1, np.int32)
        T_frame_reference = T_cw @ se3.inverse(found.pose(k - 1))
        mapper.process(KeyframeRequest(frame, k - 1, T_frame_reference, none, none, none[:0], none[:0]))
    assert len(found.timestamp_of) == 50
    check_books(found)


def test_more_features_than_the_map_was_made_for_find_room(tmp_path):
    save_map(tmp_path / "m", stored(make_map(2, world=scatter(50)).map))
    assert load_map(tmp_path / "m").map.keyframes.features == 50
    roomy = load_map(tmp_path / "m", 900).map
    assert roomy.keyframes.features == 900 and (roomy.keyframes.point[:, 50:] <= 0).all()
    check_books(roomy)


def test_byte_identical_arrays_are_kept_once(tmp_path):
    noise = np.random.default_rng(0).normal(size=10000)
    once = write_container(tmp_path / "one", "map", {}, {"a": noise})
    twice = write_container(tmp_path / "two", "map", {}, {"a": noise, "b": noise.copy(), "c": noise[::-1]})
    assert twice - 2 * once < 1000
    _, found = read_container(tmp_path / "two", "map")
    assert all(np.array_equal(found[name], want) for name, want in zip("abc", (noise, noise, noise[::-1]), strict=True))
    found["a"][0] = 0
    assert found["b"][0] == noise[0]


@given(
    st.sampled_from(["u1", "<i4", ">i4", "<f4", "<f8", "bool", "<u8"]),
    st.lists(st.integers(0, 4), min_size=1, max_size=3),
    st.integers(0, 2**32 - 1),
)
def test_container_gives_back_any_array(tmp_path_factory, dtype, shape, seed):
    array = np.random.default_rng(seed).integers(0, 2, shape).astype(dtype)
    file = tmp_path_factory.mktemp("container") / "file"
    assert write_container(file, "map", {"word": "é"}, {"it": array}) == file.stat().st_size
    header, found = read_container(file, "map")
    assert header == {"kind": "map", "word": "é"} and found["it"].shape == array.shape
    assert np.array_equal(found["it"], array) and found["it"].dtype == array.dtype.newbyteorder("=")


# -- what must be added to the file when a type grows -----------------------------------------------------------------


def test_every_field_of_the_map_is_in_the_file():
    """A new field must be stored, or be recomputed in `storage.py`; then raise `container.FORMAT` and add it here."""
    recomputed = {"timestamp", "features", "words", "grid", "surface"}
    assert {each.name for each in fields(Frame)} == {*storage.OF_FRAME, *recomputed}
    assert {each.name for each in fields(Features)} == set(storage.OF_FEATURES)
    assert {each.name for each in fields(Surface)} == set(storage.OF_SURFACE)
    assert {each.name for each in fields(Retired)} == {"parent", "T_self_parent"}
    known = {"lock", "epoch", "points", "keyframes", "frames", "slot_of", "timestamp_of", "_retired"}
    of_this_run = {"growth"}  # frames are anchored while they are tracked
    assert set(vars(Map())) == known | of_this_run


# -- files that are not whole -----------------------------------------------------------------------------------------


def refused(file: Path) -> str:
    with pytest.raises(VslamError) as caught:
        load_map(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: ") and "\n" not in message and ";" in message
    return message


@settings(max_examples=300)
@given(st.data())
def test_no_flipped_byte_goes_unseen(tmp_path_factory, data):
    content = bytearray(small_file())
    at = data.draw(st.one_of(st.integers(0, 63), st.integers(0, len(content) - 1), st.just(len(content) - 1)))
    content[at] ^= data.draw(st.integers(1, 255))
    file = tmp_path_factory.mktemp("flip") / "m"
    file.write_bytes(content)
    refused(file)


@settings(max_examples=100)
@given(st.data())
def test_no_cut_and_no_addition_goes_unseen(tmp_path_factory, data):
    content = small_file()
    file = tmp_path_factory.mktemp("cut") / "m"
    file.write_bytes(content[: data.draw(st.one_of(st.integers(0, 100), st.integers(0, len(content) - 1)))])
    refused(file)
    file.write_bytes(content + data.draw(st.binary(min_size=1, max_size=50)))
    assert "damaged" in refused(file)


@given(st.binary(max_size=200), st.booleans())
def test_anything_else_is_not_a_map(tmp_path_factory, content, begins_right):
    file = tmp_path_factory.mktemp("other") / "m"
    file.write_bytes(container.MAGIC * begins_right + content)
    refused(file)


def resealed(file: Path, version=1, **changed) -> None:
    """Change the header of a saved map, or its version, and make the checksum right again."""
    import hashlib
    import json

    content = small_file()
    _, _, _, size = container.HEAD.unpack_from(content)
    begin = container.HEAD.size
    header = json.loads(content[begin : begin + size]) | changed
    text = json.dumps(header).encode()
    payload = content[begin + size : -container.CHECKSUM_BYTES]
    length = begin + len(text) + len(payload) + container.CHECKSUM_BYTES
    body = struct.pack("<8sIQQ", container.MAGIC, version, length, len(text)) + text + payload
    file.write_bytes(body + hashlib.sha256(body).digest())


def test_newer_format_is_told_from_damage(tmp_path):
    resealed(tmp_path / "m")
    assert len(load_map(tmp_path / "m").map) == 2
    resealed(tmp_path / "m", version=container.FORMAT + 1)
    assert "format 2" in refused(tmp_path / "m") and "update vslam" in refused(tmp_path / "m")


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "index"}, {"arrays": []}, {"arrays": 3}, {"camera": {}}, {"camera": None}, {"images": 1},
        {"features_per_keyframe": 3}, {"arrays": [{"name": "a", "dtype": "O", "shape": [1], "at": 0, "bytes": 8}]},
    ],
    ids=str,
)  # fmt: skip
def test_whole_file_of_something_else_is_refused(tmp_path, changed):
    resealed(tmp_path / "m", **changed)
    refused(tmp_path / "m")


def test_map_that_kernels_would_stumble_over_is_refused(tmp_path):
    for name, value in (("keyframes/point", 10**6), ("keyframes/point", -2), ("retired/parent", 77)):
        map_ = make_map(3, world=scatter(20)).map
        map_.remove_keyframe(1, 2)
        arrays = storage.map_to_arrays(map_)
        arrays[name][0] = value
        with pytest.raises(ValueError):  # noqa: PT011
            storage.map_from_arrays(arrays, CAMERA, 20, 0)


def test_missing_and_unreadable_files_are_one_line(tmp_path):
    assert "No such file" in refused(tmp_path / "none")
    assert "directory" in refused(tmp_path).lower()
    (tmp_path / "empty").touch()
    assert "empty" in refused(tmp_path / "empty")
    (tmp_path / "text").write_text("ply\n")
    assert "is no map" in refused(tmp_path / "text")


def test_places_that_cannot_be_written_are_one_line_and_leave_nothing(tmp_path):
    whole = stored(make_map(2).map)
    (tmp_path / "file").touch()
    for file in (tmp_path, tmp_path / "none" / "m", tmp_path / "file" / "m", tmp_path / ("n" * 250), Path("/")):
        with pytest.raises(VslamError, match=";"):
            save_map(file, whole)
    with pytest.raises(VslamError, match="no keyframe"):
        save_map(tmp_path / "m", stored(Map()))
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_device_is_not_replaced_and_a_link_stays_one(tmp_path):
    whole = stored(make_map(2).map)
    os.mkfifo(tmp_path / "pipe")
    for file in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(VslamError, match="no plain file;"):
            save_map(file, whole)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "m")
    save_map(tmp_path / "link", whole)
    assert (tmp_path / "link").is_symlink() and len(load_map(tmp_path / "folder" / "m").map) == 2


def test_failed_save_leaves_the_old_map(tmp_path, monkeypatch):
    file = tmp_path / "m"
    save_map(file, stored(make_map(2).map))
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(VslamError, match="No space left"):
        save_map(file, stored(make_map(3).map))
    assert len(load_map(file).map) == 2 and list(tmp_path.iterdir()) == [file]


def killed_saves(folder: Path, how: str) -> list[str]:
    """What `killed_save.py` says of maps whose saving processes were killed."""
    command = [sys.executable, "-m", "tests.mapping.killed_save", how, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_killed_at_any_line_of_a_save_the_map_is_whole(tmp_path):
    said = killed_saves(tmp_path, "lines")
    assert len(said) > 20 and said[0] == "old" and said[-1] == "new"
    assert sorted(said, reverse=True) == said  # the old one until the rename, the new one from then on


def test_killed_at_random_moments_of_saving_the_map_is_whole(tmp_path):
    said = killed_saves(tmp_path, "moments")
    assert len(said) == 40 and set(said) <= {"old", "new"}


def test_what_a_killed_save_left_is_removed_in_time(tmp_path):
    file = tmp_path / "map[1].vslam"
    old, new = (tmp_path / f".{file.name}.{k}{container.UNFINISHED}" for k in range(2))
    for left in (old, new):
        left.touch()
    os.utime(old, (0, time.time() - 2 * container.STALE_S))
    save_map(file, stored(make_map(2).map))
    assert set(tmp_path.iterdir()) == {file, new}


# -- another camera, other features -----------------------------------------------------------------------------------


def test_map_fits_the_camera_and_features_it_was_made_with():
    whole = StoredMap(Map(), CAMERA, "orb", "orb", name="room.vslam")
    check_compatible(whole, CAMERA, "orb")
    check_compatible(whole, replace(CAMERA, fps=5.0, depth_scale=1.0, distortion=(0.0,) * 5), "orb")
    check_compatible(whole, CAMERA, "orb", "gem-1")
    check_compatible(replace(whole, place_model="gem-1"), CAMERA, "orb")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"width": 640}, "width 320; now width 640"), ({"fx": 262.6}, "fx"), ({"baseline": 0.1}, "baseline"),
        ({"cx": 159.0, "cy": 119.0}, "cx 159.5, cy 119.5"), ({"distortion": (0.1, 0, 0, 0)}, "distortion"),
    ],
)  # fmt: skip
def test_map_of_another_camera_is_refused(changed, says):
    whole = StoredMap(Map(), CAMERA, "orb", "orb", name="room.vslam")
    with pytest.raises(VslamError, match=says) as caught:
        check_compatible(whole, replace(CAMERA, **changed), "orb")
    assert str(caught.value).startswith("room.vslam: ") and "\n" not in str(caught.value)


def test_map_of_other_features_or_places_is_refused():
    whole = StoredMap(Map(), CAMERA, "orb", "orb", "gem-1", name="room.vslam")
    with pytest.raises(VslamError, match="'orb', this run's 'sift'; use --extractor orb"):
        check_compatible(whole, CAMERA, "sift")
    with pytest.raises(VslamError, match="gem-2"):
        check_compatible(whole, CAMERA, "orb", "gem-2")


def test_features_are_told_apart_by_what_makes_descriptors(tmp_path):
    key = lambda name, **options: features_key(ExtractorConfig(name, 500, options))  # noqa: E731
    assert key("orb") == key("orb", levels=8) == "orb" != key("orb", levels=4)
    assert len({key("orb"), key("sift"), key("superpoint"), key("gcnv2"), key("gcnv2-tiny")}) == 5
    assert key("superpoint") == key("superpoint", precision="int8", backend="onnx")
    for k, name in enumerate(("a.onnx", "same.onnx", "other.onnx")):
        (tmp_path / name).write_bytes(bytes([k // 2]))
    a, same, other = (key("superpoint", weights=str(tmp_path / f"{name}.onnx")) for name in ("a", "same", "other"))
    assert a == same != other and key("superpoint") not in (a, other)
    with pytest.raises(VslamError, match="cannot be read"):
        key("superpoint", weights=str(tmp_path / "none.onnx"))
    with pytest.raises(VslamError, match="unknown extractor"):
        key("surf")
