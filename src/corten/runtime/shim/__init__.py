"""The process that stands by a container: its stdio, log, exit status and exec sessions. Kept free of imports."""
