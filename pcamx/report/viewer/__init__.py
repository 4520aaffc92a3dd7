"""A page of all films: one HTML file and a folder of pictures beside it, opened without a network.

`pictures` writes what is drawn of a film, `page` the file; templates/viewer* is what a browser
runs. `pcamx evaluate` makes one of every film it measured, `pcamx explain` one of its folder.
"""
