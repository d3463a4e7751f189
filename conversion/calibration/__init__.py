"""What calibration data give: batches, observation, statistics, thresholds."""
