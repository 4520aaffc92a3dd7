"""One file a format of marks: its text in, `Annotated` images with shapes or masks out.

`detect.open_marks` tells the formats apart by their content; `pcamx.data.marks.collect` calls it.
"""
