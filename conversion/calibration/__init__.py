"""What calibration data tell: batches, observation, statistics, thresholds."""
