"""Training of networks that describe a whole image: which earlier view shows the same place."""
