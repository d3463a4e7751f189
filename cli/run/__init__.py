"""fit, validate, test and predict: Lightning's command line with run folders and resuming."""
