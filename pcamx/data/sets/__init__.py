"""Which films a data set has: a folder in; an `Entry` a film, with label, patient and split, out.

`listing.list_films` knows the layouts of MURA, FracAtlas and GRAZPEDWRI-DX and any set with a csv.
No film is opened here; `pcamx.data.prepare` does that.
"""
