"""Evaluation: a run in; report.json, films.csv, report.html, figure2.png and films.html out.

`evaluate.evaluate` opens a run (`measured_run`), runs its networks and the baselines over films
(`explainers`), scores every map film by film (`scoring`) and turns scores into figures
(`aggregate`); `film_table` is films.csv, `example_films` chooses what figure 2 shows, `all_films`
is films.html.
"""
