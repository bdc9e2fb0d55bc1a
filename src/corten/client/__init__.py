"""A typed, blocking client of the Docker Engine API: `Client(parse_endpoint("unix:///run/corten/corten.sock"))`.

Nothing here reads argv, the environment or a terminal; `corten.cli` does. Modules are imported only when a group of
methods is first used, since a command line pays for each of them in milliseconds.
"""
