"""Reports, from what studies have recorded and from nothing else."""
