"""Containers as processes. Kept free of imports: the spawner loads this package before it forks."""
