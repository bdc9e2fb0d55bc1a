"""The OCI runtime's command line over the embedded runtime, for those who would call runc."""
