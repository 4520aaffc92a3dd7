"""What `bench.torture` does.

`inputs` makes what a user may hand in, `files` damages it and what a run writes, `runs` hurts a
training of two ranks, `hosts` cuts one of two hosts in two. `commands` strikes the other commands,
each of which `struck`
runs, and `disks` fills their disk or takes its writes away.
"""
