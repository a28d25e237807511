"""Programs of the far machines: what stands there for docker, NVIDIA's driver and pip. See `cloud.image`."""
