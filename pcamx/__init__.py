"""pcamx: bone X-ray classification whose decision rests on the lesion."""

__version__ = "0.1.0"
