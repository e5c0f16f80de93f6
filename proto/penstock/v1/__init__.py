"""The public API, generated from the .proto files beside (`make proto`)."""
