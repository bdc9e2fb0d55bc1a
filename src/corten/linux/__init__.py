"""The kernel's interfaces under the kernel's names. Raises OSError only; imports nothing of Corten."""
