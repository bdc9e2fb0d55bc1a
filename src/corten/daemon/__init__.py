"""The composition root: configuration, wiring, signals, order of recovery. Imports everything; nothing imports it."""
