"""A cloud on one machine: what the deployment scripts are tested against. Start at `cloud.client`."""
