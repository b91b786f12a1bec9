"""Starting a verb on many devices: real processes on this machine, the workers of a TPU VM slice, a Slurm job."""
