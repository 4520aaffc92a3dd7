"""The operations of `pcamx.ops` as cases of `bench.kernels`: rivals, peers, bytes and checks."""
