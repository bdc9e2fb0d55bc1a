"""Corten: containers, as Docker made them familiar.

This module stays empty of imports: the spawner, which forks for every container, loads it first.
"""

__version__ = "0.1.0"
