"""A guided tour: one snapshot from a directory through S3 and the daemon to a checkout."""
