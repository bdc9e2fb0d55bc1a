"""Lists of images for several platforms, made on this side: their parts, where they are kept, how they are pushed."""
