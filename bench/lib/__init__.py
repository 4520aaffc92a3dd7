"""What the benches share: cases and rivals, timing, records. Each command stands one folder up."""
