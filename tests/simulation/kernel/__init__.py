"""What every simulated world is made of: virtual time, event loops in it, a network, and gRPC over that network."""
