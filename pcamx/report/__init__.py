"""What people see: figures and pictures in; tables on the terminal, HTML pages and PNG out.

`rows` and `sentences` say what tables and text hold, for terminal and page alike; `tables` and
`console` print, `page` and `comparison_page` fill templates/, `figures/` draws.
"""
