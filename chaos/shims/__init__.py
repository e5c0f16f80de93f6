"""What is loaded into nodes before everything else (LD_PRELOAD): a disk that fails on demand, a clock that is wrong."""
