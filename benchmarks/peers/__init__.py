"""Other systems that the same workloads run against, as their own projects recommend to run them."""
