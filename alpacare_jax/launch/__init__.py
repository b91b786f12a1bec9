"""Starting a verb on many devices: processes on this machine, workers of a TPU VM slice, a Slurm job."""
