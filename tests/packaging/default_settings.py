"""The text of configs/default.yaml, made from the dataclasses and their comments: `make settings` writes it."""

import inspect
import re
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from vslam.config import Config

FILE = Path(__file__).resolve().parents[2] / "configs" / "default.yaml"
HEAD = """\
# Every setting with its default. A file of your own need only hold what it changes:
#   vslam run --dataset tum --config mine.yaml --set mapping.window=15
"""
FIELD = re.compile(r"^    (\w+): [^#\n]*?(?:  # (.*))?$", re.MULTILINE)
COMMENT_COLUMN = 28


def default_settings() -> str:
    """YAML with a block for each group of settings, and the comments of the code."""
    return "\n".join([HEAD, *(_group(name, kind) for name, kind in get_type_hints(Config).items())])


def _group(name: str, kind: Any) -> str:
    assert is_dataclass(kind), f"{name}: a setting outside the groups"
    comments = dict(FIELD.findall(inspect.getsource(kind)))
    lines = [f"# {' '.join(inspect.getdoc(kind).split())}", f"{name}:"]
    for key, value in vars(kind()).items():
        text = f"  {key}: {yaml.safe_dump(value, default_flow_style=True).splitlines()[0]}"
        comment = comments[key] or _choices(get_type_hints(kind)[key])
        comment = f"# {comment}" if comment else ""
        lines.append(f"{text.ljust(COMMENT_COLUMN if comment else 0)}  {comment}".rstrip())
    return "\n".join(lines) + "\n"


def _choices(hint: Any) -> str:
    return f"one of {', '.join(get_args(hint))}" if get_origin(hint) is Literal else ""


if __name__ == "__main__":
    FILE.write_text(default_settings())
