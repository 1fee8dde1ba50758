"""Who does the work: workers of this machine, jobs of a cluster, all processes of one job."""
