"""Reading, sampling and collating, below any data set."""
