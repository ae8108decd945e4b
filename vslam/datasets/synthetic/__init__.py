"""A furnished room made of textured rectangles, a camera that moves through it, and a sensor that sees it."""
