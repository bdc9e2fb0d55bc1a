"""From a container's record to the OCI runtime specification. Pure, but for `devices`, which looks at /dev."""
