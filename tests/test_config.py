"""Settings: from YAML and words, every mistake in one line that names it."""

import dataclasses
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from vslam.config import Config, MappingConfig, find_config, from_dict, load_config, shipped_folders, to_dict
from vslam.errors import VslamError

SHIPPED = sorted(
    file.stem
    for folder in shipped_folders("configs")
    for file in folder.glob("*.yaml")
    if not file.stem.startswith("train-")  # settings of another tree
)


def write(folder: Path, text: str) -> Path:
    file = folder / "mine.yaml"
    file.write_text(text)
    return file


def refused(*arguments) -> str:
    with pytest.raises(VslamError) as caught:
        load_config(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def values_like(default):
    """Other values of a setting's type."""
    if isinstance(default, bool):
        return st.booleans()
    if isinstance(default, int):
        return st.integers(-(2**31), 2**31)
    if isinstance(default, float):
        return st.floats(allow_nan=False, allow_infinity=False)
    if isinstance(default, dict):
        return st.dictionaries(st.text(st.characters(codec="ascii", categories=["L"]), min_size=1), st.integers())
    return st.just(default)


@st.composite
def configs(draw) -> Config:
    groups = {}
    for group in dataclasses.fields(Config):
        default = getattr(Config(), group.name)
        values = {f.name: draw(values_like(getattr(default, f.name))) for f in dataclasses.fields(default)}
        groups[group.name] = dataclasses.replace(default, **values)
    return Config(**groups)


@given(configs())
def test_dictionary_and_yaml_give_the_same_config_back(config):
    values = to_dict(config)
    assert from_dict(Config, values, "here") == config
    assert from_dict(Config, yaml.safe_load(yaml.safe_dump(values)), "here") == config


def test_nothing_said_is_the_default():
    assert load_config() == Config()
    assert from_dict(Config, {}, "here") == Config()


def test_empty_file_is_the_default(tmp_path):
    assert load_config(write(tmp_path, "# nothing\n")) == Config()


def test_file_changes_what_it_names_and_words_go_over_it(tmp_path):
    file = write(tmp_path, "extractor: {name: sift, max_keypoints: 300}\nmapping:\n  window: 7\n")
    config = load_config(file, ["extractor.max_keypoints=200", "tracking.search_px=9"])
    assert (config.extractor.name, config.extractor.max_keypoints, config.mapping.window) == ("sift", 200, 7)
    assert config.tracking.search_px == 9.0 and isinstance(config.tracking.search_px, float)
    assert config.depth == Config().depth


@pytest.mark.parametrize(
    ("word", "get", "value"),
    [
        ("extractor.name=sift", lambda c: c.extractor.name, "sift"),
        ("mapping.optimizer=g2o", lambda c: c.mapping.optimizer, "g2o"),
        ("depth.max_m=4.5", lambda c: c.depth.max_m, 4.5),
        ("extractor.options.levels=4", lambda c: c.extractor.options, {"levels": 4}),
        ("extractor.options={levels: 4, threshold: 9}", lambda c: c.extractor.options, {"levels": 4, "threshold": 9}),
        ("extractor.name=a=b", lambda c: c.extractor.name, "a=b"),
    ],
)
def test_word_sets_a_value(word, get, value):
    assert get(load_config(None, [word])) == value


def test_last_of_equal_words_counts():
    assert load_config(None, ["mapping.window=3", "mapping.window=4"]).mapping.window == 4


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("x", "expected key=value"),
        ("=3", "expected key=value"),
        ("max_keypoints=3", "unknown key 'max_keypoints'; known: extractor"),
        ("extractor.max_keypoint=3", "unknown key 'extractor.max_keypoint'; known: name, max_keypoints"),
        ("extractor=orb", "'extractor' is a group of settings"),
        ("extractor.name.first=3", "'name' is a value|extractor.name is"),
        ("extractor.max_keypoints=many", "extractor.max_keypoints is 'many'; expected int"),
        ("extractor.max_keypoints=1.5", "expected int"),
        ("extractor.max_keypoints=true", "expected int"),
        ("extractor.max_keypoints=", "extractor.max_keypoints has no value; expected int"),
        ("extractor.max_keypoints=15e-1", "expected int"),
        ("extractor.name=", "extractor.name has no value; expected str"),
        ("extractor.name=3", "extractor.name is '3'; expected str"),
        ("extractor.options=3", "expected dict"),
        ("depth.max_m=far", "depth.max_m is 'far'; expected float"),
        ("mapping.optimizer=ceres", "mapping.optimizer is 'ceres'; expected one of numba, g2o"),
        ("mapping.optimizer=[numba]", "expected one of numba, g2o"),
    ],
)
def test_wrong_word_is_named_in_one_line(word, said):
    import re

    message = refused(None, [word])
    assert message.startswith(f"--set {word}") and re.search(said, message)


@pytest.mark.parametrize("word", ["extractor.name=[", "extractor.name=a: b: c", "extractor.name='"])
def test_word_that_is_not_yaml_is_named_in_one_line(word):
    assert refused(None, [word]).startswith(f"--set {word}")


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 0.001), ("1E-3", 0.001), ("-2e+1", -20.0), ("1.e1", 10.0), ("7", 7.0)]
)
def test_number_as_people_write_it_is_a_number(tmp_path, text, value):
    assert load_config(None, [f"depth.noise_m={text}"]).depth.noise_m == value
    assert load_config(write(tmp_path, f"depth: {{noise_m: {text}}}")).depth.noise_m == value


def test_whole_number_with_exponent_is_one():
    keypoints = load_config(None, ["extractor.max_keypoints=1e3"]).extractor.max_keypoints
    assert keypoints == 1000 and isinstance(keypoints, int)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("extractor: [", "not YAML"),
        ("a: b: c", "not YAML"),
        ("- 1\n- 2\n", "expected 'key: value' lines, found a list"),
        ("orb", "expected 'key: value' lines, found a str"),
        ("trackin:\n  search_px: 3\n", "unknown key 'trackin'"),
        ("tracking:\n  serch_px: 3\n", "unknown key 'tracking.serch_px'"),
        ("tracking:\n", "'tracking' is a group of settings"),
        ("1: 2\n", "unknown key '1'"),
        ("tracking: {search_px: wide}", "tracking.search_px is 'wide'; expected float"),
    ],
)
def test_wrong_file_is_named_in_one_line(tmp_path, text, said):
    file = write(tmp_path, text)
    message = refused(file, ["mapping.window=3"])
    assert message.startswith(f"{file}:") and said in message


def test_binary_file_is_named_in_one_line(tmp_path):
    file = tmp_path / "image.yaml"
    file.write_bytes(b"\xff\xd8\xff\xe0\x80")
    assert refused(file).startswith(f"{file}: not YAML")


def test_mistake_of_a_word_is_not_blamed_on_the_file(tmp_path):
    file = write(tmp_path, "mapping: {window: 4}")
    assert refused(file, ["mapping.window=x"]).startswith("--set mapping.window=x:")


def test_missing_file_lists_the_shipped_ones(tmp_path, monkeypatch):
    (tmp_path / "fast.yaml").write_text("mapping: {window: 4}")
    (tmp_path / "train-small.yaml").write_text("steps: 4")
    monkeypatch.setattr("vslam.config.shipped_folders", lambda name: [tmp_path])
    with pytest.raises(VslamError, match=r"shipped ones: train-small$"):
        find_config("small.yaml", training=True)
    assert refused("nowhere.yaml") == "nowhere.yaml: no such configuration file; shipped ones: fast"
    assert find_config("fast") == tmp_path / "fast.yaml"
    assert load_config("fast").mapping.window == 4


def test_file_goes_before_a_shipped_name(tmp_path, monkeypatch):
    (tmp_path / "fast.yaml").write_text("mapping: {window: 4}")
    monkeypatch.setattr("vslam.config.shipped_folders", lambda name: [tmp_path])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fast").write_text("mapping: {window: 5}")
    assert load_config("fast").mapping.window == 5


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_config_is_found_by_name_and_valid(name):
    assert isinstance(load_config(name), Config)


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        MappingConfig().window = 3
