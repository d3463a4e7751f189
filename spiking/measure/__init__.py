"""What is measured on spiking networks: operations and energy, firing rates, values that are not finite."""
