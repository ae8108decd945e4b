"""For all tests: properties are judged by their truth, not by the time a loaded machine takes."""

from hypothesis import settings

settings.register_profile("vslam", deadline=None)
settings.load_profile("vslam")
