"""Messages between nodes, generated from the .proto files beside (`make proto`)."""
