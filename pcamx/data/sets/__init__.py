"""Which films a data set has: a folder in; an `Entry` a film, with label, patient and split, out.

`listing.list_films` knows MURA's and FracAtlas' layouts and any set with a csv. No film is opened
here; `pcamx.data.prepare` does that.
"""
