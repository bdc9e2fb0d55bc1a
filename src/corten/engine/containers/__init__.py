"""Containers: each part of their life in a module, and in a class that takes no more than it needs.

What clients ask for is in `creation`, `lifecycle`, `removal`, `inspection`, `streams`, `configuration` and `execs`;
what nobody asks for in `supervisor` (ends, restarts by policy), `recovery` (the start of the daemon) and `health`.
Below them are `launch` and `release`, which make and unmake what a running container has, and `catalog`, which knows
them all. `assembly` puts all of it together.
"""
