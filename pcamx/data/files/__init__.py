"""One film from disk: the bytes of an image or DICOM file in, upright grey levels out.

`film.read_film` is the door, for `pcamx.data.prepare` and `pcamx.explain`. What cannot be read
raises `file_content.UnfitError` with the reason.
"""
