"""`pcamx prepare`: a data set in, a store out that training can rely on.

`store_builder.prepare` checks every film in worker processes (`verify`), leaves out what cannot be
used, writes DICOM as PNG (`dicom_to_png`) and, if asked, films in another format (`transcode`,
compared in `parity`). The command calls it, and `pcamx continue` with more marks (`more_marks`).
"""
