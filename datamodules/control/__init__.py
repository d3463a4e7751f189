"""Environments, episodes and replay for agents."""
