"""The public gRPC services, one module a service, and the one place where errors become gRPC statuses."""
