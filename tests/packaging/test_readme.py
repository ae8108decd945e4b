"""What the README and the shipped settings say is so."""

import re
from pathlib import Path

import pytest
import yaml

from tests.packaging.default_settings import default_settings
from vslam.cli.main import build_parser
from vslam.config import Config, load_config, to_dict

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if not kind for line in block.splitlines()]


def test_default_settings_are_those_of_the_code():
    text = (ROOT / "configs" / "default.yaml").read_text()
    assert yaml.safe_load(text) == to_dict(Config()), "configs/default.yaml is behind vslam/config.py: make settings"
    assert text == default_settings(), "configs/default.yaml is behind vslam/config.py: make settings"


@pytest.mark.parametrize(
    "name", [file.stem for file in (ROOT / "configs").glob("*.yaml") if not file.stem.startswith("train-")]
)
def test_shipped_settings_load(name):
    assert isinstance(load_config(name), Config)


@pytest.mark.parametrize("name", ["own_images", "frontend"])
def test_programs_in_readme_are_the_examples(name):
    docstring, program = (ROOT / "examples" / f"{name}.py").read_text().split("\n\n", 1)
    assert docstring.count('"""') == 2
    assert ("python", program) in BLOCKS


@pytest.mark.parametrize("line", [line for line in COMMANDS if re.match(r"(python -m )?vslam ", line)])
def test_commands_in_readme_parse(line):
    words = line.removeprefix("python -m ").split()[1:]
    assert build_parser(words[0]).parse_args(words).command == words[0]


def test_continuous_integration_runs_the_commands_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    test = README.split("## Working on it")[1].split("```")[1].strip().splitlines()
    assert len(test) == 2 and set(test) <= set(script)


@pytest.mark.parametrize("file", ["README.md", *(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md"))])
def test_links_lead_somewhere(file):
    for target in re.findall(r"\]\(([^)#]+)", (ROOT / file).read_text()):
        assert target.startswith("https://") or (ROOT / file).parent.joinpath(target).exists(), target
