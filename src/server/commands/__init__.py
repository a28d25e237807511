"""The commands of `riva-gateway`, one file each."""
