"""Place recognition to look at: self-contained pages of an evaluation, and of the answers to queries."""

from __future__ import annotations

import base64
from html import escape
from importlib.resources import files as package_files
from pathlib import Path
from string import Template

import cv2
import numpy as np

from vslam.errors import VslamError
from vslam.evaluation import drawing
from vslam.evaluation.charts import Scale, thin_out
from vslam.evaluation.drawing import Item, Label, Line, Picture
from vslam.evaluation.places import Comparison, PlaceScores
from vslam.evaluation.places_images import ImageSet

MISSES, HITS = 30, 18
"""Pictured at most: the surest misses, the least sure hits."""
ANSWERS = 300
"""Queries pictured on a page of answers, at most."""
THUMB_PX, QUALITY = 180, 80
MATRIX_PX = 560
COLUMNS = (
    ("recall_at_1", "Recall@1", 100, "{:.1f} %"),
    ("recall_at_5", "Recall@5", 100, "{:.1f} %"),
    ("recall_at_10", "Recall@10", 100, "{:.1f} %"),
    ("auc", "AUC", 1, "{:.3f}"),
    ("recall_at_full_precision", "recall at 100 % precision", 100, "{:.1f} %"),
    ("precision_of_all", "precision of all", 100, "{:.1f} %"),
)


def comparison_html(found: Comparison) -> str:
    """The page of `vslam place eval --plot`."""
    best = list(found.scores)[-1]
    sections = [figure_table(found), _charts(found), *_pictures(found, best)]
    judged = f"{len(found.truth.queries)} queries, {int(found.right.any(axis=1).sum())} of them with a match"
    facts = [found.model, f"right: {found.truth.rule}", judged, f"database of {len(found.truth.places)} images"]
    return _page(f"Places: {found.queries.where} in {found.database.where}", facts, sections)


def answers_html(
    queries: ImageSet, database: ImageSet | None, names: list[list[str]], scores: np.ndarray, model: str
) -> str:
    """The page of `vslam place query --plot`: a row of pictures for each query.

    Args:
        database: where the indexed images are; None when they are no longer there.
        names: of the found images, best first, for each query.
        scores: (Q, k) their similarities.
    """
    rows = []
    known = {name: row for row, name in enumerate(database.names)} if database is not None else {}
    shown = thin_out(len(names), ANSWERS).tolist()
    for row in shown:
        figures = [_figure(queries, row, f"<b>{_short(queries.names[row])}</b>")]
        for name, score in zip(names[row], scores[row], strict=True):
            figures.append(_figure(database, known.get(name), f"{score:.3f} {_short(name)}"))
        rows.append(f'<div class="row">{"".join(figures)}</div>')
    count = f"{len(names)} queries" + (f", {len(shown)} shown" if len(shown) < len(names) else "")
    facts = [model, count, "left the query, then the most similar places with their similarity"]
    return _page(f"Places: {queries.where}", facts, rows)


def figure_table(found: Comparison) -> str:
    """All figures, a row for each way to compare."""
    head = "".join(f"<th>{title}</th>" for _, title, _, _ in COLUMNS)
    rows = ""
    for name, scores in found.scores.items():
        figures = scores.figures()
        cells = "".join(f"<td>{form.format(factor * figures[key])}</td>" for key, _, factor, form in COLUMNS)
        rows += f"<tr><td>{escape(name)}</td>{cells}</tr>"
    return f'<div class="panel"><table><tr><th></th>{head}</tr>{rows}</table></div>'


def _charts(found: Comparison) -> str:
    names = zip(drawing.SERIES, found.scores, strict=False)
    legend = "".join(f'<span><i style="background:var(--{colour})"></i>{escape(name)}</span>' for colour, name in names)
    chart = drawing.svg_element(precision_chart(list(found.scores.values())))
    left = f'<h3>Precision over recall</h3><div class="legend">{legend}</div>{chart}'
    note = "A row is a query, a column a database image; dark is similar, coloured is right."
    right = f'<h3>Similarity</h3><p class="note">{note}</p><br>{_matrix(found)}'
    return f'<div class="views"><div class="panel">{left}</div><div class="panel">{right}</div></div>'


def precision_chart(scores: list[PlaceScores], size: tuple[float, float] = (560.0, 560.0)) -> Picture:
    """Precision over recall, both from 0 to 1."""
    x, y = Scale(0.0, 1.0, 40.0, size[0] - 12), Scale(0.0, 1.0, size[1] - 36, 10.0)
    items: list[Item] = []
    for tick in np.linspace(0, 1, 6):
        items.append(Line(np.array([[x(tick), y.start], [x(tick), y.end]]), "grid", 1.0))
        items.append(Line(np.array([[x.start, y(tick)], [x.end, y(tick)]]), "grid", 1.0))
        items.append(Label(float(x(tick)), y.start + 15, f"{tick:.1f}", "muted", "middle"))
        items.append(Label(x.start - 6, float(y(tick)) + 4, f"{tick:.1f}", "muted", "end"))
    items.append(Label((x.start + x.end) / 2, size[1] - 4, "recall", "muted", "middle"))
    items.append(Label(x.start + 6, y.end + 14, "precision", "muted"))
    for colour, each in zip(drawing.SERIES, scores, strict=False):
        recall, precision = np.append(0.0, each.recall), np.append(each.precision[0], each.precision)
        kept = thin_out(len(recall))
        items.append(Line(np.stack([x(recall[kept]), y(precision[kept])], axis=1), colour, 2.0))
    return Picture(*size, tuple(items))


def _matrix(found: Comparison) -> str:
    """Similarities as a picture, dark where high; the right cells in colour on top."""
    known = np.isfinite(found.similarity)
    low, high = np.percentile(found.similarity[known], [1, 99.9])
    grey = np.where(known, 255 - 235 * np.clip((found.similarity - low) / max(high - low, 1e-9), 0, 1), 255)
    factor = min(MATRIX_PX / max(grey.shape), 1.0)
    size = tuple(max(1, round(side * factor)) for side in grey.shape[::-1])
    small = cv2.resize(grey.astype(np.uint8), size, interpolation=cv2.INTER_AREA)
    share = cv2.resize(found.right.astype(np.float32), size, interpolation=cv2.INTER_AREA)[..., None]
    mark = np.array([0, 150, 240], np.float32)  # orange, BGR
    image = small[..., None] * (1 - 0.6 * (share > 0)) + 0.6 * (share > 0) * mark
    return f'<img class="matrix" alt="matrix of similarities" src="{_data(image.astype(np.uint8), ".png")}">'


def _pictures(found: Comparison, way: str) -> list[str]:
    """Misses and hits by the last way to compare."""
    scores = found.scores[way]
    wrong = np.flatnonzero(scores.has_match & ~scores.is_right)
    lone = np.flatnonzero(~scores.has_match & np.isfinite(scores.score))
    right = np.flatnonzero(scores.is_right)
    wrong, lone = (rows[np.argsort(-scores.score[rows], kind="stable")] for rows in (wrong, lone))
    right = right[np.argsort(scores.score[right], kind="stable")]
    kinds = (
        ("Misses", "the surest first: query, what was found, what is right", wrong, MISSES),
        ("Queries without a match", "the surest first: query, what was found", lone, MISSES // 3),
        ("Hits", "the least sure first: query, what was found, the middle one of the right ones", right, HITS),
    )
    sections = []
    for title, order, rows, most in kinds:
        if len(rows):
            count = f"{len(rows)} by {way}" + (f", {most} shown" if len(rows) > most else "")
            cards = "".join(_card(found, scores, row) for row in rows[:most].tolist())
            sections.append(f'<h2>{title}</h2><p class="note">{count}; {order}.</p><div class="cards">{cards}</div>')
    return sections


def _card(found: Comparison, scores: PlaceScores, row: int) -> str:
    query, best = int(found.truth.queries[row]), int(scores.found[row, 0])
    place = int(found.truth.places[best])
    mates = found.truth.places[np.flatnonzero(found.right[row])]
    name = f"<b>{_short(found.queries.names[query])}</b>"
    text = f"<b>{scores.score[row]:.3f}</b> {_short(found.database.names[place])}"
    figures = [_figure(found.queries, query, name)]
    figures.append(_figure(found.database, place, text, "right" if scores.is_right[row] else "wrong"))
    if len(mates):
        mate = int(mates[len(mates) // 2])
        figures.append(_figure(found.database, mate, f"right: {_short(found.database.names[mate])}"))
    return f'<div class="card">{"".join(figures)}</div>'


def _figure(images: ImageSet | None, row: int | None, caption: str, kind: str = "") -> str:
    """A thumbnail with a caption; an image that is no longer there leaves an empty frame."""
    source = ""
    if images is not None and row is not None:
        try:
            source = f' src="{_data(_thumb(images.picture(row)), ".jpg")}"'
        except VslamError:
            caption += " (not there)"
    return f'<figure class="{kind}"><img alt=""{source}><figcaption>{caption}</figcaption></figure>'


def _short(name: str) -> str:
    """The name of a file without its folders and suffix."""
    return escape(Path(name).stem)


def _thumb(image: np.ndarray) -> np.ndarray:
    factor = THUMB_PX / max(image.shape[:2])
    size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)


def _data(image: np.ndarray, suffix: str) -> str:
    kind, options = {".jpg": ("jpeg", [cv2.IMWRITE_JPEG_QUALITY, QUALITY]), ".png": ("png", [])}[suffix]
    return f"data:image/{kind};base64," + base64.b64encode(cv2.imencode(suffix, image, options)[1].tobytes()).decode()


def _page(heading: str, facts: list[str], sections: list[str]) -> str:
    page = Template(package_files("vslam.evaluation").joinpath("places_template.html").read_text(encoding="utf-8"))
    return page.substitute(
        title=escape(f"{heading}: vslam"),
        heading=escape(heading),
        subtitle=escape(" \u00b7 ".join(facts)),
        palette=drawing.palette_css(),
        font=drawing.FONT,
        sections="\n".join(sections),
    )
