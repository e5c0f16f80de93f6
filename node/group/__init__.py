"""Consumer groups on their coordinator: who is a member, who has which partition, and how far the group has read."""
