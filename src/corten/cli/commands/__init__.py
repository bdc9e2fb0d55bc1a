"""One module per family of commands; each holds `flags.Command` objects that `cli.table` names."""
