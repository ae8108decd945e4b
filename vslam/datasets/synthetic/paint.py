"""What surfaces look like: each painter fills a canvas of its surface's size, never the same twice."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vslam.datasets.synthetic.noise import cellular, fractal

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True)
class Canvas:
    """A surface to paint: pixels (rows, columns), pixels per metre, and the surface's own random numbers."""

    shape: tuple[int, int]
    scale: float
    rng: np.random.Generator

    def seed(self) -> int:
        """A fresh seed for a noise."""
        return int(self.rng.integers(1 << 40))

    def noise(self, cell_m: float, octaves: int = 7, gain: float = 0.65, stretch: float = 1.0) -> np.ndarray:
        """Noise (H, W) whose coarsest cells are `cell_m` metres high and `stretch` times that wide."""
        size = cell_m * self.scale
        return fractal(self.shape, (size * stretch, size), self.seed(), octaves, gain)

    def fill(self, colour) -> np.ndarray:
        """A float32 image (H, W, 3) of one colour, BGR 0 to 255."""
        return np.full((*self.shape, 3), colour, np.float32)

    def pixels(self, metres: float) -> int:
        """A length on the surface in pixels, at least one."""
        return max(round(metres * self.scale), 1)

    def point(self) -> tuple[int, int]:
        """A random pixel (x, y)."""
        return int(self.rng.integers(self.shape[1])), int(self.rng.integers(self.shape[0]))


def hue(rng: np.random.Generator, saturation: float = 0.6, value: float = 0.8) -> tuple[float, float, float]:
    """A random BGR colour, 0 to 255, of about this saturation and value."""
    hsv = np.array([[[rng.uniform(0, 360), np.clip(rng.normal(saturation, 0.15), 0.05, 1),
                      np.clip(rng.normal(value, 0.12), 0.12, 1)]]], np.float32)  # fmt: skip
    return tuple(float(channel) * 255 for channel in cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0])


def plaster(canvas: Canvas, colour=(178, 200, 212)) -> np.ndarray:
    """Rough painted wall with stains and hair cracks."""
    image = canvas.fill(colour)
    image *= (1 + 0.28 * canvas.noise(0.7) + 0.22 * canvas.noise(0.05, 4))[..., None]
    _cracks(canvas, image, int(6 * image.size / 3 / canvas.scale**2))
    return image


def _cracks(canvas: Canvas, image: np.ndarray, count: int) -> None:
    mean = np.mean(image, axis=(0, 1))
    for _ in range(count):
        steps = canvas.rng.normal(0, 0.035 * canvas.scale, (int(canvas.rng.integers(3, 12)), 2))
        line = np.cumsum(np.vstack([canvas.point(), steps + canvas.rng.normal(0, 0.02 * canvas.scale, 2)]), axis=0)
        shade = tuple(float(v) for v in mean * canvas.rng.uniform(0.45, 0.75))
        cv2.polylines(image, [line.astype(np.int32)], False, shade, canvas.pixels(0.003), cv2.LINE_AA)


def stone(canvas: Canvas, colour=(120, 140, 160)) -> np.ndarray:
    """Field stones with dark joints."""
    owner, edge = np.empty(canvas.shape, np.float32), np.empty(canvas.shape, np.float32)
    cellular(0.23 * canvas.scale, canvas.seed(), owner, edge)
    bend = 0.08 * canvas.noise(0.12, 4)
    joint = np.clip((edge + bend) / 0.12, 0.25, 1)
    image = canvas.fill(colour) * (0.62 + 0.75 * owner)[..., None]
    image += (owner * 7919 % 1 - 0.5)[..., None] * np.array([-45, 10, 45], np.float32)  # warm and cold stones
    return image * (joint * (1 + 0.55 * canvas.noise(0.1, 6)))[..., None]


def wood(canvas: Canvas, colour=(70, 110, 160), board_m: float = 0.14) -> np.ndarray:
    """Boards of uneven width along the columns, each with its own tone, grain and knots."""
    image = canvas.fill(colour) * (1 + 0.5 * canvas.noise(0.025, 5, 0.7, stretch=14))[..., None]
    row = 0
    while row < canvas.shape[0]:
        width = canvas.pixels(board_m * canvas.rng.uniform(0.75, 1.3))
        column = 0
        while column < canvas.shape[1]:  # boards end somewhere, too
            length = canvas.pixels(canvas.rng.uniform(0.5, 1.6))
            image[row : row + width, column : column + length] *= canvas.rng.uniform(0.72, 1.22)
            image[row : row + width, column : column + canvas.pixels(0.004)] *= 0.45
            column += length
        image[row : row + canvas.pixels(0.005)] *= 0.45
        row += width
    for _ in range(int(5 * np.prod(canvas.shape) / canvas.scale**2)):
        radius = canvas.pixels(canvas.rng.uniform(0.006, 0.02))
        cv2.ellipse(image, canvas.point(), (2 * radius, radius), 0, 0, 360, tuple(v * 0.4 for v in colour), -1, 16)
    return image


def leaves(canvas: Canvas, colour=(150, 185, 175)) -> np.ndarray:
    """Wallpaper with strewn leaves of all sizes and colours."""
    image = canvas.fill(colour) * (1 + 0.18 * canvas.noise(0.5))[..., None]
    for _ in range(int(38 * np.prod(canvas.shape) / canvas.scale**2)):
        size = canvas.rng.uniform(0.03, 0.11)
        axes = canvas.pixels(size), canvas.pixels(size * canvas.rng.uniform(0.2, 0.5))
        angle, tone, at = (canvas.rng.uniform(0, 360), hue(canvas.rng, 0.45, 0.62), canvas.point())
        cv2.ellipse(image, at, axes, angle, 0, 360, tone, -1, cv2.LINE_AA)
        direction = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))]) * axes[0]
        ends = [tuple(int(v) for v in np.array(at) + sign * direction) for sign in (-1, 1)]
        cv2.line(image, *ends, tuple(v * 0.55 for v in tone), canvas.pixels(0.004), cv2.LINE_AA)
    return image * (1 + 0.2 * canvas.noise(0.04, 4))[..., None]


def carpet(canvas: Canvas, colour=(60, 50, 150)) -> np.ndarray:
    """A woven carpet: borders, and medallions that differ."""
    image = canvas.fill(colour)
    for inset, tone in ((0.04, hue(canvas.rng, 0.4, 0.8)), (0.1, hue(canvas.rng, 0.7, 0.35)), (0.16, colour)):
        m = canvas.pixels(inset)
        image[m:-m, m:-m] = tone
    for _ in range(int(16 * np.prod(canvas.shape) / canvas.scale**2)):
        at, radius = canvas.point(), canvas.pixels(canvas.rng.uniform(0.04, 0.2))
        corners, turn = int(canvas.rng.integers(3, 9)), canvas.rng.uniform(0, 6)
        for shrink in (1.0, 0.7, 0.35):
            angle = turn + np.arange(corners) * 2 * np.pi / corners
            star = np.stack([np.cos(angle), np.sin(angle)], 1) * radius * shrink + at
            cv2.fillPoly(image, [star.astype(np.int32)], hue(canvas.rng, 0.6, 0.6), cv2.LINE_AA)
    return image * (1 + 0.45 * canvas.noise(0.02, 4, 0.9) + 0.25 * canvas.noise(0.5, 3))[..., None]


def fabric(canvas: Canvas, colour=(120, 90, 60)) -> np.ndarray:
    """Coarse woven cloth with a few wide stripes."""
    image = canvas.fill(colour) * (1 + 0.3 * canvas.noise(0.3, 4) + 0.4 * canvas.noise(0.015, 3, 0.9))[..., None]
    for _ in range(3):
        start = int(canvas.rng.integers(canvas.shape[1]))
        image[:, start : start + canvas.pixels(canvas.rng.uniform(0.02, 0.09))] *= np.array(hue(canvas.rng)) / 160
    return image


def lines_of_text(canvas: Canvas, image: np.ndarray, ink, line_m: float, margin_m: float = 0.02) -> None:
    """Write words of random letters, line after line, into an image."""
    face, row, margin = (cv2.FONT_HERSHEY_SIMPLEX, canvas.pixels(margin_m + line_m), canvas.pixels(margin_m))
    size = line_m * canvas.scale / 34  # the font's capitals are about 22 pixels high at size 1
    drawn = np.clip(image, 0, 255).astype(np.uint8)  # OpenCV writes text into 8-bit images only
    while row < canvas.shape[0] - margin // 2:
        column = margin + canvas.pixels(line_m * 0.8) * int(canvas.rng.integers(0, 3))
        while column < canvas.shape[1] - margin:
            word = "".join(canvas.rng.choice(list(LETTERS), int(canvas.rng.integers(2, 8))))
            width = cv2.getTextSize(word, face, size, 1)[0][0]
            if column + width > canvas.shape[1] - margin or canvas.rng.random() < 0.12:
                break
            tone = ink if isinstance(ink, tuple) else hue(canvas.rng, 0.5, 0.85)
            cv2.putText(drawn, word, (column, row), face, size, tone, max(int(size * 2), 1), cv2.LINE_AA)
            column += width + canvas.pixels(line_m * 0.6)
        row += canvas.pixels(line_m * 1.25)
    image[:] = drawn


def page(canvas: Canvas) -> np.ndarray:
    """A sheet or a poster of text with a title and a block picture."""
    image = canvas.fill((215, 228, 232))
    height, width = canvas.shape
    lines_of_text(canvas, image, (40, 35, 35), max(0.012, 0.05 * height / canvas.scale))
    top, left = (int(canvas.rng.uniform(0.1, 0.5) * height), int(canvas.rng.uniform(0.05, 0.4) * width))
    block = image[top : top + int(0.35 * height), left : left + int(0.5 * width)]
    block[:] = mosaic(Canvas(block.shape[:2], canvas.scale, canvas.rng), 0.04)
    return image


def mosaic(canvas: Canvas, cell_m: float = 0.07) -> np.ndarray:
    """Coloured shards."""
    owner, edge = np.empty(canvas.shape, np.float32), np.empty(canvas.shape, np.float32)
    cellular(max(cell_m * canvas.scale, 2.0), canvas.seed(), owner, edge)
    palette = np.array([hue(canvas.rng, 0.5, 0.68) for _ in range(64)], np.float32)
    return palette[(owner * 64).astype(int)] * np.clip(edge / 0.08, 0.3, 1)[..., None]


def landscape(canvas: Canvas) -> np.ndarray:
    """Sky, hills and a lake out of noise."""
    height, width = canvas.shape
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    tone = np.array([225, 190, 140], np.float32) + canvas.rng.uniform(-35, 25, 3).astype(np.float32)
    sky = tone * (1.05 - 0.4 * rows[..., None])
    image = np.broadcast_to(sky, (height, width, 3)) * (1 + 0.35 * canvas.noise(0.15, 5, stretch=2))[..., None]
    for k in range(5):
        ridge = fractal((1, width), (width / 3, 1), canvas.seed(), 7)[0] * (0.5 - 0.06 * k) + 0.38 + 0.13 * k
        ground = rows > ridge
        near = np.array([60 - 6 * k, 95 - 8 * k, 85 - 6 * k]) + canvas.rng.uniform(
            -22, 40, 3
        )  # hills, darker when near
        tone = canvas.fill(near) * (1 + 0.7 * canvas.noise(0.08, 5))[..., None]
        image = np.where(ground[..., None], tone, image)
    return image


def discs(canvas: Canvas) -> np.ndarray:
    """An abstract painting of discs, rings and strokes."""
    image = canvas.fill(hue(canvas.rng, 0.3, 0.85)) * (1 + 0.2 * canvas.noise(0.1, 5))[..., None]
    for _ in range(26):
        radius, tone = (canvas.pixels(canvas.rng.uniform(0.01, 0.12)), hue(canvas.rng, 0.7, 0.6))
        if canvas.rng.random() < 0.6:
            thick = -1 if canvas.rng.random() < 0.5 else canvas.pixels(0.012)
            cv2.circle(image, canvas.point(), radius, tone, thick, cv2.LINE_AA)
        else:
            cv2.line(image, canvas.point(), canvas.point(), tone, canvas.pixels(0.012), cv2.LINE_AA)
    return image


def picture(canvas: Canvas) -> np.ndarray:
    """One of the kinds of picture, in a frame."""
    kind = (page, mosaic, landscape, discs)[int(canvas.rng.integers(4))]
    image = kind(canvas) * (1 + 0.08 * canvas.noise(0.03, 3))[..., None]
    border, tone = canvas.pixels(0.022), hue(canvas.rng, 0.4, 0.3)
    cv2.rectangle(image, (0, 0), (canvas.shape[1] - 1, canvas.shape[0] - 1), tone, 2 * border)
    return image


def books(canvas: Canvas) -> np.ndarray:
    """A row of book spines of all widths, heights and colours, each with its title."""
    image = canvas.fill((25, 30, 38))
    height, width = canvas.shape
    column = 0
    while column < width:
        thick = canvas.pixels(canvas.rng.uniform(0.015, 0.05))
        top = int(height * canvas.rng.uniform(0.02, 0.3))
        spine = image[top:, column : column + thick]
        spine[:] = hue(canvas.rng, 0.55, 0.6)
        spine[:, : canvas.pixels(0.002)] *= 0.5
        for _ in range(int(canvas.rng.integers(2, 7))):  # bands and title strokes
            at, tall = (int(canvas.rng.uniform(0.05, 0.9) * len(spine)), canvas.pixels(canvas.rng.uniform(0.004, 0.03)))
            side = canvas.pixels(canvas.rng.uniform(0, 0.008))
            spine[at : at + tall, side : max(thick - side, side + 1)] = hue(canvas.rng, 0.4, 0.85)
        column += thick
    return image * (1 + 0.25 * canvas.noise(0.03, 4))[..., None]


def cardboard(canvas: Canvas) -> np.ndarray:
    """A packing box: tape, a printed label, scuffs."""
    image = canvas.fill((105, 150, 185)) * (1 + 0.3 * canvas.noise(0.15))[..., None]
    height, width = canvas.shape
    middle, half = width // 2 + int(canvas.rng.integers(-4, 5)), canvas.pixels(0.025)
    image[:, max(middle - half, 0) : middle + half] *= np.array([0.85, 0.9, 1.05], np.float32)
    top, left = (int(canvas.rng.uniform(0.1, 0.5) * height), int(canvas.rng.uniform(0.05, 0.5) * width))
    label = image[top : top + int(0.4 * height), left : left + int(0.45 * width)]
    label[:] = page(Canvas(label.shape[:2], canvas.scale, canvas.rng))
    _cracks(canvas, image, 4)
    return image


def drawers(canvas: Canvas) -> np.ndarray:
    """A painted front with drawers of uneven height, knobs and wear."""
    image = wood(canvas, hue(canvas.rng, 0.35, 0.6), 0.3)
    row = 0
    while row < canvas.shape[0]:
        tall = canvas.pixels(canvas.rng.uniform(0.14, 0.28))
        image[row : row + canvas.pixels(0.008)] *= 0.3
        for part in (0.2, 0.8):
            at = (int(canvas.shape[1] * (part + canvas.rng.uniform(-0.02, 0.02))), row + tall // 2)
            cv2.circle(image, at, canvas.pixels(0.015), (30, 160, 200), -1, cv2.LINE_AA)
            cv2.circle(image, at, canvas.pixels(0.015), (20, 40, 50), canvas.pixels(0.004), cv2.LINE_AA)
        row += tall
    return image


def screen(canvas: Canvas) -> np.ndarray:
    """A monitor that shows a program."""
    image = canvas.fill((42, 34, 30))
    lines_of_text(canvas, image, None, 0.013, 0.015)
    cv2.rectangle(image, (0, 0), (canvas.shape[1] - 1, canvas.shape[0] - 1), (18, 18, 18), 2 * canvas.pixels(0.012))
    return image


def lamp(canvas: Canvas) -> np.ndarray:
    """A bright panel in a frame."""
    image = canvas.fill((235, 245, 250))
    cv2.rectangle(image, (0, 0), (canvas.shape[1] - 1, canvas.shape[0] - 1), (120, 125, 130), 2 * canvas.pixels(0.02))
    return image


def window(canvas: Canvas) -> np.ndarray:
    """A view outside behind a cross of bars."""
    image = landscape(canvas) * 1.25 + 25
    bar, (height, width) = canvas.pixels(0.03), canvas.shape
    for at in ((0, 0), (width - 1, height - 1)):
        cv2.rectangle(image, at, (width - 1 - at[0], height - 1 - at[1]), (205, 215, 220), 2 * bar)
    image[:, width // 2 - bar // 2 : width // 2 + bar // 2 + 1] = (205, 215, 220)
    image[int(height * 0.36) : int(height * 0.36) + bar] = (205, 215, 220)
    return image
