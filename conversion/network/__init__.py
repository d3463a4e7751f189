"""What a converted network is made of, below any method: clock, units, sites, counts."""
