"""What containers say: drivers that write it (in the shim) and readers (in cortend).

Kept free of imports: the spawner loads the writing half before it forks, and that half imports nothing costly.
"""
