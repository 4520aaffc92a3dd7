"""Training: a config in, finished stages in the run's folder out.

`trainer.train` is called by launch/train.py on every rank. It checks what can be checked at once
(`preflight`), and turns batches into updates by a stage (`stages`, with the paper's `losses`) and
the engine, without knowing which stage; `validation` follows it, `stopping` hears Ctrl-C.
"""
