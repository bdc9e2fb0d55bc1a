"""What runs between fork and execve.

The constitution of this package (it also binds what it imports):

1. Everything needed is imported before the fork; the import budget is 10 ms in all. No asyncio, typing, dataclasses,
   json, re, enum, logging, pathlib, msgspec, contextlib.
2. No logging, no locks, no threads. What is to be said goes over the channel to the parent, as data.
3. Every path of the child ends in execve or `os._exit`; no exception passes the frame that cloned.
4. Paths of the host are used before `pivot_root`; paths of the container only through descriptors, resolved inside its
   root, since the image and other containers may have put symbolic links anywhere.
5. Every descriptor is close-on-exec from birth.
"""
