"""What is published about chips and their hosts, and the names of topologies."""
