"""`pcamx explain`: a model and films in; a picture, the map and lesion candidates of each out.

`folder.explain` is the door; processes read and draw (`work`) while this one runs the
network (`maps`).
"""
