"""TLS of the listeners: how strong it is, whose certificate it shows, and how a new one comes in while streams run."""
