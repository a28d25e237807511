"""Where this machine's Python is, and the packages for it. `cloud.image` writes it anew for its machines."""

BASE = "/usr/bin/python3"
PACKAGES = "/usr/lib/python3/dist-packages"
