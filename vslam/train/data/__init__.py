"""What networks learn from: packed images, warps, light, shapes, pairs."""
