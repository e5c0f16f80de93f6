"""Consumer groups on their coordinators: membership, assignments, committed offsets."""
