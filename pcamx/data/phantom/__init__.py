"""Drawn radiographs with known lesions, laid out like MURA-v1.1.

Numbers of films and temptations come in; films, masks, markers.csv and twins go out. `plan` draws
what every film shows, `film` its pixels, `write` the folders. `pcamx phantom`, the benches and the
tests call `draw_phantoms`.
"""

from pcamx.data.phantom.temptations import THE_LETTER, Temptation, temptation
from pcamx.data.phantom.write import draw_phantoms

__all__ = ["THE_LETTER", "Temptation", "draw_phantoms", "temptation"]
